"""Objectives that are chosen: what counts, in which direction, and where it cannot be measured."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import optuna
import pytest

from petra_optuna.errors import StudyError, UserError
from petra_optuna.evaluation import EFFICIENCY_METRICS, Budget, Evaluation, Evaluator, Limits
from petra_optuna.measurement import DeviceProfile
from petra_optuna.measurement.energy import NO_RAPL
from petra_optuna.operations import Half, Prune, Train
from petra_optuna.pipeline import SearchSpace
from petra_optuna.results import (
    as_csv,
    as_figure,
    as_json,
    as_table,
    confirm,
    front,
    publish,
    study_hypervolume,
)
from petra_optuna.study import StudyRecord, optimize, trial_record
from petra_optuna.study import record as attributes
from petra_optuna.tasks import Task

SPACE = SearchSpace((Train, Prune), (Half,), max_length=2)
CHOSEN = ["macs", "peak_memory_bytes", "train_s", "depth"]


def _run(task: Task, folder: Path, **changes: object) -> optuna.Study:
    settings = {"trials": 5, "objectives": CHOSEN, "space": SPACE, "budget": Budget(2)} | changes
    return optimize(task, storage=f"sqlite:///{folder}/study.db", cache=folder / "cache", **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def study(tiny_task: Task, tmp_path_factory: pytest.TempPathFactory) -> optuna.Study:
    return _run(tiny_task, tmp_path_factory.mktemp("objectives"))


def test_the_chosen_objectives_are_the_values_of_a_trial_and_all_is_recorded(study: optuna.Study) -> None:
    assert study.metric_names == ["accuracy", *CHOSEN]
    assert [way.name for way in study.directions] == ["MAXIMIZE", *["MINIMIZE"] * 4]
    every = {"accuracy", *(known.name for known in EFFICIENCY_METRICS)} - {"energy_j"}
    for trial in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
        recorded = StudyRecord(study).evaluation(trial.number)["values"]
        assert set(recorded) - {"energy_j"} == every
        assert trial.values == [recorded[name] for name in study.metric_names]


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_value_that_is_no_number_fails_the_trial_with_its_reason(
    tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float | None
) -> None:
    """Optuna by itself fails such a trial without a word."""
    evaluate = Evaluator.evaluate

    def without_throughput(self: Evaluator, *arguments: object) -> Evaluation:
        evaluation = evaluate(self, *arguments)  # type: ignore[arg-type]
        others = {name: known for name, known in evaluation.values.items() if name != "throughput_per_s"}
        given = {} if value is None else {"throughput_per_s": value}
        return dataclasses.replace(evaluation, values=others | given)

    monkeypatch.setattr(Evaluator, "evaluate", without_throughput)
    study = _run(tiny_task, tmp_path, trials=1, objectives=["throughput_per_s"])
    (trial,) = study.get_trials(deepcopy=False)[:1]
    assert trial.state == optuna.trial.TrialState.FAIL
    assert (
        trial.user_attrs[trial_record.FAILURE] == "MeasurementFailed: throughput_per_s could not be measured"
    )
    assert trial_record.EVALUATION not in trial.user_attrs


def test_cheaper_is_better_in_each(study: optuna.Study) -> None:
    """Trial 0 is the original, trial 1 the same trained on: more of it by two of the objectives."""
    original, trained = (StudyRecord(study).evaluation(number)["values"] for number in (0, 1))
    assert (original["depth"], trained["depth"]) == (0, 1)
    assert original["train_s"] == 0 < trained["train_s"]
    assert original["macs"] == trained["macs"] == front(study).baseline["macs"]
    assert 0 in [row.trial for row in front(study).rows]
    assert (
        study_hypervolume(study) >= 1
    )  # the original lies within the bounds, though two of its values are 0


def test_table_page_note_and_confirmation_show_them(study: optuna.Study, tiny_task: Task) -> None:
    found = front(study)
    assert json.loads(as_json(found))["directions"] == dict.fromkeys(CHOSEN, "minimize") | {
        "accuracy": "maximize"
    }
    assert as_csv(found).splitlines()[0].startswith("trial,pipeline,accuracy,macs,peak_memory_bytes,train_s")
    headings = [str(column.header) for column in as_table(found).columns]
    assert [head for head in headings[3:] if head][:4] == ["M MACs", "peak MB", "train s", "nodes"]
    figure = as_figure(found)
    assert figure.layout.xaxis.title.text == "macs, M MACs"
    publish(study)
    confirmation = confirm(study, tiny_task, rounds=1, bootstrap=100)
    assert list(confirmation.directions) == ["accuracy", *CHOSEN]
    for member in confirmation.members:
        assert list(member.values) == ["accuracy", *CHOSEN]
        assert member.values["peak_memory_bytes"].value > 0


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["speed"], "unknown objective 'speed'; beside the task's metric there are latency_ms, thr"),
        (["macs", "macs"], "one or more, each once, besides accuracy; got macs, macs"),
        ([], "one or more, each once, besides accuracy; got none"),
    ],
)
def test_wrong_objectives_are_one_line_before_anything_is_made(
    tiny_task: Task, tmp_path: Path, names: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        _run(tiny_task, tmp_path, objectives=names)
    assert not (tmp_path / "study.db").exists()


@pytest.mark.parametrize("asked", [{"objectives": ["energy_j"]}, {"limits": Limits(energy_j=1.0)}])
def test_what_this_machine_cannot_measure_is_refused(
    tiny_task: Task, tmp_path: Path, asked: dict[str, object]
) -> None:
    """Also as a limit: one that nothing is compared with would hold for every trial."""
    if (Path("/sys/class/powercap") / "intel-rapl:0").exists():
        pytest.skip("this machine counts energy")
    with pytest.raises(StudyError, match=f"leave it out: {NO_RAPL}"):
        _run(tiny_task, tmp_path, **asked)
    assert optuna.get_all_study_names(f"sqlite:///{tmp_path}/study.db") == []


def test_the_best_of_several_throughput_batches_counts(tiny_task: Task, tmp_path: Path) -> None:

    profile = DeviceProfile(throughput_batches=(1, 32))
    study = _run(tiny_task, tmp_path, trials=1, objectives=["throughput_per_s"], profile=profile)
    frozen = study.user_attrs[attributes.BASELINE]
    assert set(frozen["baseline"]["throughput_per_s"]) == {"1", "32"}
    assert frozen["values"]["throughput_per_s"] == max(frozen["baseline"]["throughput_per_s"].values())
    record = StudyRecord(study).evaluation(0)
    assert [item["batch"] for item in record["measurements"]["throughput"]] == [1, 32]
    assert record["best_throughput_batch"] == 32
