"""Searches whose files count as they are best served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from support.serving import Served, fake_settings

from petra_optuna.errors import UserError
from petra_optuna.evaluation import Budget
from petra_optuna.inference import Recommendation
from petra_optuna.operations import Prune, Train
from petra_optuna.pipeline import SearchSpace
from petra_optuna.results import as_json, front
from petra_optuna.study import StudyRecord, optimize
from petra_optuna.tasks import Task

SPACE = SearchSpace((Train, Prune), (), max_length=1)
SERVED = Served()


@pytest.fixture(scope="module", autouse=True)
def searches() -> Iterator[list[Path]]:
    with pytest.MonkeyPatch.context() as patch:
        yield fake_settings(patch, SERVED)


def _run(task: Task, folder: Path, **changes: object) -> optuna.Study:
    settings = {
        "trials": 2,
        "space": SPACE,
        "budget": Budget(1),
        "objectives": ["latency_ms", "throughput_per_s"],
        "tune_inference": "throughput",
    } | changes
    return optimize(task, storage=f"sqlite:///{folder}/study.db", cache=folder / "cache", **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def study(tiny_task: Task, home: Path) -> optuna.Study:
    return _run(tiny_task, home)


def test_latency_and_throughput_are_those_of_the_recommended_setting(study: optuna.Study) -> None:
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    assert complete
    for trial in complete:
        evaluation = StudyRecord(study).evaluation(trial.number)
        answer = Recommendation.from_dict(evaluation["recommendation"])
        assert answer.setting.batch > 1
        call_ms = SERVED(answer.setting)
        assert answer.expected["latency_ms"].value == pytest.approx(call_ms)
        assert trial.values[1:] == pytest.approx([call_ms, 1e3 * answer.setting.batch / call_ms])
        assert evaluation["values"]["latency_ms"] == trial.values[1]


def test_the_baseline_is_served_at_its_best_as_well(study: optuna.Study) -> None:
    """By the formula all shapes take the same, so a trial and the baseline differ in nothing."""
    record = StudyRecord(study).baseline_record
    answer = Recommendation.from_dict(record["recommendation"])
    for name in ("latency_ms", "throughput_per_s"):
        assert record["values"][name] == answer.expected[name].value
        assert StudyRecord(study).evaluation(0)["values"][name] == pytest.approx(record["values"][name])


def test_the_front_shows_them(study: optuna.Study) -> None:
    pareto = front(study)
    record = StudyRecord(study)
    assert pareto.baseline["latency_ms"] == record.baseline_record["values"]["latency_ms"]
    for row in pareto.rows:
        for name in ("latency_ms", "throughput_per_s"):
            assert row.values[name] == record.evaluation(row.trial)["values"][name]
            assert row.change_percent[name] == pytest.approx(0.0, abs=1e-6)
    assert json.loads(as_json(pareto))["front"]


def test_each_shape_is_searched_once(study: optuna.Study, searches: list[Path]) -> None:
    answers = [StudyRecord(study).baseline_record["recommendation"]] + [
        StudyRecord(study).evaluation(trial.number)["recommendation"]
        for trial in study.get_trials(states=(TrialState.COMPLETE,))
    ]
    assert len(searches) == len({answer["shape"] for answer in answers})
    assert any(answer["from_history"] for answer in answers)


def test_a_study_is_tuned_for_one_objective(tiny_task: Task, study: optuna.Study, home: Path) -> None:
    with pytest.raises(UserError, match=r"another specification .*tune_inference"):
        _run(tiny_task, home, tune_inference="latency")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("speed", "unknown inference objective 'speed'"),
        ("energy", "energy cannot be an objective here"),
    ],
)
def test_what_cannot_be_tuned_for_is_refused_before_there_is_a_study(
    tiny_task: Task, tmp_path: Path, given: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        _run(tiny_task, tmp_path, tune_inference=given)
    database = f"sqlite:///{tmp_path}/study.db"
    names = optuna.get_all_study_names(database) if (tmp_path / "study.db").exists() else []
    assert [name for name in names if not name.startswith("inference-")] == []
