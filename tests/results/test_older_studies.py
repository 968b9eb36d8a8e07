"""Studies that an earlier release stored: shown, confirmed, exported and resumed as they were."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState
from rich.console import Console
from support.stored_study import old_task

from petra_optuna.database import open_storage
from petra_optuna.pipeline import decode
from petra_optuna.results import (
    as_csv,
    as_html,
    as_json,
    as_table,
    confirm,
    confirmation_of,
    confirmed_table,
    export_trial,
    front,
    ledger_line,
    limits_line,
    pipeline_text,
    publish,
)
from petra_optuna.results.confirmation.retrain import Blueprint
from petra_optuna.study import StudyRecord, load_study, resume, trial_record, warm_start_line
from petra_optuna.study import record as attributes
from petra_optuna.study.run import stored_space
from petra_optuna.tasks import Task

STORED = Path(old_task.__file__).with_name("study.zip")
STUDIES = ("old", "warm")
FRONT = {"old": {15, 0, 2, 10}, "warm": {0, 1, 2, 5}}
FLOAT = (0, 2, 10)
"""Members of the old front whose file is no INT8 one, so that every CPU computes the same."""
ONE_SAMPLE = 1 / 300 + 1e-9


@pytest.fixture(scope="module")
def task() -> Task:
    return old_task.make()


@pytest.fixture
def url(task: Task, tmp_path: Path) -> str:
    """The database as if this machine had made it."""
    with zipfile.ZipFile(STORED) as archive:
        archive.extractall(tmp_path)
    found = f"sqlite:///{tmp_path}/study.db"
    for name in STUDIES:
        study = _stored(found, name)
        specification, baseline = (
            study.user_attrs[key] for key in (attributes.SPECIFICATION, attributes.BASELINE)
        )
        host = StudyRecord(study).specification.profile.host()
        if baseline["host"]["torch"] != torch.__version__:  # whose layers' source is in the fingerprint
            specification["fingerprint"] = task.fingerprint
        specification["cache"] = str(tmp_path / "cache")
        study.set_user_attr(attributes.SPECIFICATION, specification)
        study.set_user_attr(attributes.BASELINE, {**baseline, "host": host})
    return found


def _stored(url: str, name: str) -> optuna.Study:
    return load_study(open_storage(url, must_exist=True), name)


def _described(study: optuna.Study, number: int) -> str:
    """The pipeline that a trial's parameters stand for, in the words of today."""
    space = stored_space(StudyRecord(study).specification)
    return decode(study.trials[number].params, space).canonical().describe()


@pytest.mark.skipif(torch.__version__ != "2.13.0+cpu", reason="the source of torch's layers counts")
def test_the_task_is_the_one_that_was_stored(task: Task, tmp_path: Path) -> None:
    """Moved code and mended docstrings of this package make it no other task."""
    with zipfile.ZipFile(STORED) as archive:
        archive.extractall(tmp_path)
    study = _stored(f"sqlite:///{tmp_path}/study.db", "old")
    assert task.fingerprint == StudyRecord(study).specification.fingerprint


@pytest.mark.parametrize("name", STUDIES)
def test_the_front_has_the_stored_values_and_the_present_names(url: str, name: str) -> None:
    study = _stored(url, name)
    shown = front(study)
    assert {row.trial for row in shown.rows} == FRONT[name]
    for row in shown.rows:
        assert list(row.values.values()) == study.trials[row.trial].values
        assert row.pipeline == _described(study, row.trial)
    stored = study.user_attrs[attributes.BASELINE]
    assert shown.baseline == {key: stored["values"][key] for key in shown.directions}
    assert StudyRecord(study).baseline.to_dict() == stored["yardstick"]
    assert json.loads(as_json(shown))["baseline"] == shown.baseline
    assert as_csv(shown).count("\n") == 1 + len(shown.rows)
    assert "plotly" in as_html(shown)
    text = io.StringIO()
    Console(file=text, width=200).print(as_table(shown))
    assert all(row.pipeline in text.getvalue() for row in shown.rows)


def test_every_trial_tells_what_it_stored_in_the_present_names(url: str) -> None:
    for name in STUDIES:
        study = _stored(url, name)
        record = StudyRecord(study)
        space = stored_space(record.specification)
        for trial in study.trials:
            stored = trial.user_attrs[trial_record.EVALUATION]
            evaluation = record.evaluation(trial.number)
            pipeline = decode(trial.params, space).canonical()
            blueprint = Blueprint.of(evaluation, space.operations)
            assert evaluation["pipeline"] == pipeline.to_dict() == blueprint.pipeline.to_dict()
            assert evaluation["hash"] == pipeline.hash
            assert evaluation["values"] == stored["values"]
            latency = evaluation["measurements"]["latency"]
            assert latency["baseline_ms"] == stored["measurements"]["latency"]["yardstick_ms"]
            assert pipeline_text(evaluation, "description").startswith(pipeline.describe())


def test_what_the_studies_say_of_themselves_is_read(url: str) -> None:
    old, warm = (_stored(url, name) for name in STUDIES)
    assert (limits_line(front(old)) or "").startswith("violating limits: quality_drop ")
    assert "at rungs" in ledger_line(StudyRecord(old).ledger())
    assert StudyRecord(old).ledger().train_s > 0
    rungs = StudyRecord(old).rung_results(1, without=-1)
    assert len(rungs) == sum(f"{trial_record.RUNG}1" in trial.user_attrs for trial in old.trials) > 0
    assert warm_start_line(warm) is not None
    start = StudyRecord(warm).warm_start
    assert start is not None
    assert start.trials == (15, 10)


def test_the_confirmation_is_shown_as_it_was_found(url: str) -> None:
    study = _stored(url, "old")
    confirmation, stored = confirmation_of(study), study.user_attrs[attributes.CONFIRMATION]
    assert confirmation is not None
    assert confirmation.baseline["accuracy"].value == stored["original"]["accuracy"]["value"]
    assert {member.trial for member in confirmation.members} == FRONT["old"]
    for member, expected in zip(confirmation.members, stored["members"], strict=True):
        assert member.pipeline == _described(study, member.trial)
        assert {key: value.value for key, value in member.values.items()} == {
            key: value["value"] for key, value in expected["values"].items()
        }
    text = io.StringIO()
    Console(file=text, width=200).print(confirmed_table(confirmation))
    assert "confirmed on 300 test samples" in text.getvalue()
    assert confirmation_of(_stored(url, "warm")) is None
    publish(study)
    notes = str(study._storage.get_study_system_attrs(study._study_id))
    assert "Confirmed on the test split" in notes


def test_it_is_confirmed_again(url: str, task: Task, tmp_path: Path) -> None:
    study = _stored(url, "old")
    before = confirmation_of(study)
    assert before is not None
    again = confirm(study, task, out=tmp_path / "out", bootstrap=100, rounds=1, again=True)
    assert (before.reading, again.reading) == (1, 2)
    first, second = (
        {member.trial: member.values["accuracy"].value for member in one.members} for one in (before, again)
    )
    for trial in FLOAT:
        assert second[trial] == pytest.approx(first[trial], abs=ONE_SAMPLE)
    card = (tmp_path / "out" / "card-10.md").read_text()
    assert "| value | this file, confirmed | when the search chose it | baseline, confirmed |" in card
    assert "$" not in card


@pytest.mark.parametrize("number", [2, 10])
def test_a_trial_is_exported(url: str, task: Task, tmp_path: Path, number: int) -> None:
    study = _stored(url, "old")
    done = export_trial(study, number, tmp_path / "out", task)
    assert done.stored == study.trials[number].values[0]
    assert done.quality == pytest.approx(done.stored, abs=ONE_SAMPLE)
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert recipe["nodes"] == StudyRecord(study).evaluation(number)["pipeline"]["nodes"]
    assert "$" not in (tmp_path / "out" / "card.md").read_text()


@pytest.mark.parametrize("name", STUDIES)
def test_it_is_resumed(url: str, task: Task, name: str) -> None:
    before = _stored(url, name)
    stored, kept = before.trials, front(before)
    study = resume(task, storage=url, name=name, trials=len(stored) + 2)
    assert study.trials[: len(stored)] == stored
    assert [trial.state for trial in study.trials[len(stored) :]] == [TrialState.COMPLETE] * 2
    assert front(study).baseline == kept.baseline
    for trial in study.trials[len(stored) :]:
        evaluation = StudyRecord(study).evaluation(trial.number)
        assert evaluation["description"] == _described(study, trial.number)
