"""What a study and its trials hold of ours: written, read back, and read in the forms of earlier releases."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from support.postgres import new_database
from support.specification import specification_with

from petra_optuna.database import open_storage
from petra_optuna.errors import StudyError
from petra_optuna.evaluation import RungResult, TrainingLedger
from petra_optuna.evolution import Bounds
from petra_optuna.measurement import Baseline
from petra_optuna.operations import LowRank, Prune
from petra_optuna.pipeline import FieldPrior, Pipeline
from petra_optuna.samplers import CREDIT, PRIORS, MeasuredValues, OperatorUse
from petra_optuna.study import StudyRecord, TrialRecord, load_study
from petra_optuna.study import record as attributes
from petra_optuna.study.specification import WarmStart
from petra_optuna.study.standing import Standing
from petra_optuna.study.trial_record import RUNG, RungDecision

BASELINE = Baseline(2.0, {64: 100.0})
MEASUREMENT = {"ratio": 0.5, "batch": 1, "yardstick_ms": 2.0, "yardstick_p95_ms": 3.0}


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    url = f"sqlite:///{tmp_path}/study.db"
    return optuna.create_study(storage=url, study_name="s", directions=["maximize", "minimize"])


def test_what_is_stored_of_a_study_is_read_back(study: optuna.Study, tmp_path: Path) -> None:
    record = StudyRecord(study)
    specification = specification_with(cache=str(tmp_path / "cache"))
    bounds, warm = Bounds((0.9, 1.0), (False, True)), WarmStart("other", (3, 1), 2, foreign=1, reason="no")
    record.store_specification(specification)
    assert record.is_cut_off
    record.store_bounds(bounds)
    record.store_warm_start(warm, [OperatorUse("drop", None, None, 1.0)])
    record.store_priors([FieldPrior("prune", "ratio", 0.2)])
    record.store_stop({"trials": 3})
    record.store_confirmation({"baseline": {}, "members": []})
    assert [record.count_test_reading(before) for before in (0, 0, 1)] == [True, False, True]
    record.mark_complete()
    assert not record.is_cut_off
    assert (record.specification, record.bounds, record.warm_start) == (specification, bounds, warm)
    assert (record.stop, record.test_readings) == ({"trials": 3}, 2)
    assert record.confirmation == {"baseline": {}, "members": []}
    assert study.user_attrs[CREDIT][0]["operator"] == "drop"
    assert study.user_attrs[PRIORS][0]["operation"] == "prune"


def test_what_was_never_stored_is_nothing(study: optuna.Study) -> None:
    record = StudyRecord(study)
    assert not record.is_cut_off
    assert (record.warm_start, record.confirmation, record.stop, record.test_readings) == (None, None, {}, 0)
    assert record.ledger() == TrainingLedger()
    assert record.rung_results(1, without=-1) == []
    with pytest.raises(StudyError, match="has no petra specification"):
        _ = record.specification
    with pytest.raises(StudyError, match="has no trial 0; its trials are none"):
        record.evaluation(0)


def test_what_is_stored_of_a_trial_is_read_back(study: optuna.Study) -> None:
    trial = study.ask()
    record = TrialRecord(trial)
    nothing = (record.evaluation, record.failure, record.worker, record.rung(1), record.ledger)
    assert nothing == (None, None, None, None, TrainingLedger())
    ledger = TrainingLedger(rung_stops=1, train_s=2.0)
    decision = RungDecision(RungResult(1, 0.9, 100.0, 7, 3.0), trains_on=True)
    record.store_worker({"host": "here", "pid": 7, "started": 1.0})
    record.store_rung(RungDecision(decision.result))
    record.store_rung(decision)
    record.store_ledger(ledger)
    record.store_failure("it broke")
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    stored = TrialRecord(study.trials[0])
    assert (stored.failure, stored.ledger, stored.rung(1)) == ("it broke", ledger, decision)
    assert stored.worker == {"host": "here", "pid": 7, "started": 1.0}
    assert StudyRecord(study).ledger() == ledger
    with pytest.raises(StudyError, match="trial 0 is FAIL and has no file: it broke"):
        StudyRecord(study).evaluation(0)


def test_the_front_is_feasible_and_not_dominated(study: optuna.Study) -> None:
    for values, excess in (((0.9, 2.0), 0.0), ((0.8, 3.0), 0.0), ((0.8, 1.0), -1.0), ((1.0, 0.5), 1.0)):
        trial = study.ask()
        trial.set_constraint("size_bytes", excess)
        TrialRecord(trial).store_evaluation({})
        study.tell(trial, values)
    study.add_trial(optuna.trial.create_trial(values=[2.0, 0.1]))  # by somebody, without a file
    assert StudyRecord(study).added_trials() == [4]
    feasible = StudyRecord(study).feasible_trials()
    assert [trial.number for trial in feasible] == [0, 1, 2]
    standing = Standing.of(feasible, MeasuredValues.of_study(study), None)
    assert {trial.number for trial in standing.front} == {0, 2}
    inside = Standing.of(feasible, MeasuredValues.of_study(study), 0.85)
    assert [trial.number for trial in inside.front] == [0]
    assert [trial.number for trial in inside.below] == [2]
    assert inside.outside == 2


@pytest.mark.parametrize(
    "stored",
    [
        {"baseline": BASELINE.to_dict()},
        {"yardstick": BASELINE.to_dict()},
        {},
    ],
    ids=["now", "yardstick", "one throughput batch"],
)
def test_the_baseline_is_read_in_each_form_that_was_stored(
    study: optuna.Study, stored: dict[str, Any]
) -> None:
    values = {"latency_ms": 2.0, "throughput_per_s": 100.0}
    study.set_user_attr(attributes.BASELINE, {"values": values, **stored})
    record = StudyRecord(study)
    record.store_specification(specification_with())
    assert record.baseline == BASELINE
    assert record.baseline_values == values
    assert record.baseline_record["convolutions"] is None


@pytest.mark.parametrize("throughput", [{**MEASUREMENT, "batch": 64}, [{**MEASUREMENT, "batch": 64}]])
@pytest.mark.parametrize("parity", [{"max_abs_difference": 0.1}, {"samples": 8, "agreement": None}])
def test_an_evaluation_is_read_in_each_form_that_was_stored(
    study: optuna.Study, throughput: Any, parity: dict[str, Any]
) -> None:
    pipeline = Pipeline((Prune(), LowRank()))
    trial = study.ask()
    TrialRecord(trial).store_evaluation(
        {
            "pipeline": pipeline.to_dict(),
            "description": pipeline.describe(),
            "measurements": {
                "latency": MEASUREMENT,
                "throughput": throughput,
                "energy": {"yardstick_j": 1.0},
            },
            "lowering": {"parity": parity},
        }
    )
    study.tell(trial, (0.9, 1.0))
    evaluation = StudyRecord(study).evaluation(0)
    assert evaluation["pipeline"] == pipeline.to_dict()
    assert (evaluation["repair"], evaluation["convolutions"], evaluation["stopped"]) == (None, None, None)
    latency, (largest,) = (evaluation["measurements"][name] for name in ("latency", "throughput"))
    assert (latency["baseline_ms"], latency["baseline_p95_ms"], latency["foreign_cores"]) == (2.0, 3.0, None)
    assert evaluation["best_throughput_batch"] == largest["batch"] == 64
    assert evaluation["measurements"]["energy"] == {"baseline_j": 1.0}
    assert evaluation["lowering"]["parity"] == (parity if "samples" in parity else None)
    assert evaluation["lowering"]["convolutions"] is None


def test_a_pipeline_with_operations_of_the_users_own_stays_as_it_is_stored(study: optuna.Study) -> None:
    trial = study.ask()
    stored = {"pipeline": {"nodes": [{"op": "own"}], "recipe": {}}, "description": "Own", "hash": "1"}
    TrialRecord(trial).store_evaluation(stored)
    study.tell(trial, (0.9, 1.0))
    assert StudyRecord(study).evaluation(0).items() >= stored.items()


def test_rung_results_without_a_decision_do_not_count(study: optuna.Study) -> None:
    """Releases before rungs bounded the training that survivors take stored no ``trains_on``."""
    trial = study.ask()
    trial.set_user_attr(f"{RUNG}1", {"rung": 1, "quality": 0.9})
    study.tell(trial, (0.9, 1.0))
    assert TrialRecord(study.trials[0]).rung_fields(1) is not None
    assert StudyRecord(study).rung_results(1, without=-1) == []


def test_a_confirmation_is_read_in_each_form_that_was_stored(study: optuna.Study) -> None:
    for name in ("baseline", "original"):
        StudyRecord(study).store_confirmation({name: {"accuracy": 1}, "members": []})
        assert StudyRecord(study).confirmation == {"baseline": {"accuracy": 1}, "members": []}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_of_many_that_count_the_same_reading_one_does(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    if database == "postgresql":
        url = new_database(request.getfixturevalue("postgres_url"), "counted_at_once")
    optuna.create_study(storage=open_storage(url), study_name="s")
    counters = 6
    start = threading.Barrier(counters)

    def count(_: int) -> list[bool]:
        record = StudyRecord(load_study(open_storage(url), "s"))
        counted = []
        for reading in range(3):
            start.wait()
            counted.append(record.count_test_reading(reading))
        return counted

    with ThreadPoolExecutor(counters) as pool:
        counted = list(pool.map(count, range(counters)))
    assert [sum(of_reading) for of_reading in zip(*counted, strict=True)] == [1, 1, 1]
    assert StudyRecord(load_study(open_storage(url), "s")).test_readings == 3


def test_the_cache_beside_a_database_moves_with_it_and_another_one_stays(tmp_path: Path) -> None:
    caches = {"beside": tmp_path / "old" / "cache", "elsewhere": tmp_path / "fast"}
    for name, cache in caches.items():
        storage = open_storage(f"sqlite:///{tmp_path}/old/study.db")
        study = optuna.create_study(storage=storage, study_name=name, directions=["maximize", "minimize"])
        record = StudyRecord(study)
        record.store_specification(specification_with(cache=str(cache)))
        record.mark_complete()
        assert record.specification.cache == str(cache)
    (tmp_path / "old").rename(tmp_path / "new")
    moved = open_storage(f"sqlite:///{tmp_path}/new/study.db")
    found = {name: StudyRecord(load_study(moved, name)).specification.cache for name in caches}
    assert found == {"beside": str(tmp_path / "new" / "cache"), "elsewhere": str(caches["elsewhere"])}


@pytest.mark.parametrize(
    "change",
    [{"objective_of_a_later_release": 1}, {"limits": {"price": 3}}, {"budget": None}, {"version": 9}],
    ids=lambda change: next(iter(change)),
)
def test_a_specification_of_another_release_is_one_line(study: optuna.Study, change: dict[str, Any]) -> None:
    StudyRecord(study).store_specification(specification_with())
    study.set_user_attr(attributes.SPECIFICATION, {**study.user_attrs[attributes.SPECIFICATION], **change})
    with pytest.raises(StudyError, match=r"specification (cannot be read|has version 9)"):
        _ = StudyRecord(study).specification
