"""Repairs as a study shows, ships, resumes and confirms them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import optuna
import pytest
from support import planted_front

from petra_optuna import cli
from petra_optuna.deploy import lower
from petra_optuna.evaluation import Limits, shipping
from petra_optuna.operations import Prune, QuantizeStatic
from petra_optuna.pipeline import SearchSpace, suggest
from petra_optuna.results import (
    as_json,
    confirm,
    export_trial,
    front,
    limits_line,
)
from petra_optuna.study import StudyRecord, optimize, resume, trial_record

SPACE = SearchSpace((Prune,), (QuantizeStatic,), max_length=1)
LIMITS = Limits(quality_drop=0.02)
QUANTISED = 1
"""Number of the control that is static INT8 alone."""


def _searched(folder: Path, limits: Limits = LIMITS) -> optuna.Study:
    folder.mkdir(exist_ok=True)
    url = f"sqlite:///{folder}/study.db"
    return optimize(
        planted_front.make(),
        trials=2,
        storage=url,
        space=SPACE,
        limits=limits,
        cache=folder / "cache",
        source=None,
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> optuna.Study:
    return _searched(tmp_path_factory.mktemp("repair"))


def test_a_repaired_trial_is_on_the_front_with_the_values_of_its_file(study: optuna.Study) -> None:
    record = StudyRecord(study).evaluation(QUANTISED)
    assert record["repair"]["shipped"]
    assert record["repair"]["drop_before"] > 0.5 > LIMITS.quality_drop >= record["repair"]["drop_after"]
    assert (
        record["artifact"]["size_bytes"] == record["repair"]["size_after"] > record["repair"]["size_before"]
    )
    assert study.trials[QUANTISED].constraints["quality_drop"] <= 0
    assert QUANTISED in [row.trial for row in front(study).rows]
    assert study.trials[QUANTISED].values == [record["values"][name] for name in study.metric_names]


def test_parameters_and_hash_stay_those_of_the_pipeline(study: optuna.Study) -> None:
    """What the sampler knows of a trial is what it asked for, so plans and duplicates do not change."""
    record = StudyRecord(study).evaluation(QUANTISED)
    asked = suggest(optuna.trial.FixedTrial(study.trials[QUANTISED].params), SPACE)
    assert record["hash"] == asked.hash
    assert (
        record["pipeline"]["nodes"][0]["keep_float"]
        == 0
        == study.trials[QUANTISED].params["convert.static.keep_float"]
    )


def test_front_and_savings_count_repairs(study: optuna.Study) -> None:
    found = front(study)
    assert (StudyRecord(study).ledger().repairs, StudyRecord(study).ledger().repairs_within) == (1, 1)
    assert limits_line(found) == "repairs: 1 tried, 1 brought within quality_drop"
    assert json.loads(as_json(found))["repairs"] == {"tried": 1, "within": 1}


def test_card_and_recipe_of_the_export_tell_of_it(study: optuna.Study, tmp_path: Path) -> None:
    export_trial(study, QUANTISED, tmp_path / "out", planted_front.make())
    record = StudyRecord(study).evaluation(QUANTISED)
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert recipe["repair"] == record["repair"]
    card = (tmp_path / "out" / "card.md").read_text()
    assert "Repair: the first file loses 0.7" in card
    assert f"with {', '.join(record['repair']['in_float'])} in float" in card
    export_trial(study, 0, tmp_path / "original", planted_front.make())
    assert "Repair: none was needed." in (tmp_path / "original" / "card.md").read_text()


def test_a_confirmation_builds_the_repaired_file_again(study: optuna.Study) -> None:
    confirmed = confirm(study, planted_front.make(), seeds=2, bootstrap=100, rounds=1)
    member = next(member for member in confirmed.members if member.trial == QUANTISED)
    assert member.seedless
    assert member.seeds[0].quality == member.values["accuracy"].value > 0.9


def test_a_study_killed_in_a_repair_and_resumed_is_the_one_never_killed(
    study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments, **given):  # type: ignore[no-untyped-def]
        context = arguments[4]
        if context is not None and context.repair:
            raise KeyboardInterrupt
        return lower(*arguments, **given)

    with monkeypatch.context() as patch:
        patch.setattr(shipping, "lower", stopped)
        with pytest.raises(KeyboardInterrupt):
            _searched(tmp_path / "killed")
    url = f"sqlite:///{tmp_path}/killed/study.db"
    resumed = resume(planted_front.make(), storage=url, space=SPACE)
    again = next(trial for trial in resumed.trials if "petra:retry" in trial.system_attrs)
    record, expected = StudyRecord(resumed).evaluation(again.number), StudyRecord(study).evaluation(QUANTISED)
    assert again.params == study.trials[QUANTISED].params
    for key in ("repair", "hash", "lowering", "nodes"):
        assert record[key] == expected[key]
    assert record["artifact"]["sha256"] == expected["artifact"]["sha256"]
    assert (StudyRecord(resumed).ledger().repairs, StudyRecord(resumed).ledger().repairs_within) == (1, 1)


def test_without_a_limit_on_quality_nothing_is_repaired(tmp_path: Path) -> None:
    study = _searched(tmp_path / "free", Limits())
    assert StudyRecord(study).evaluation(QUANTISED)["repair"] is None
    assert front(study).ledger.repairs == 0
    assert limits_line(front(study)) is None
    assert study.trials[QUANTISED].user_attrs[trial_record.LEDGER]["repairs"] == 0


def test_the_command_prints_the_count(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = str(study._storage._backend.engine.url)  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "argv", ["petra", "front", "--storage", url])
    with pytest.raises(SystemExit):
        cli.main()
    assert "repairs: 1 tried, 1 brought within quality_drop" in capsys.readouterr().out
