"""Every trial without values says why, and what is not its pipeline's fault is run again."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler
from optuna.trial import TrialState
from support.specification import SPACE, specification_with

from petra_optuna.database import one_line_storage_errors
from petra_optuna.errors import LoweringFailed, PipelineError, StudyError, TrialError
from petra_optuna.evaluation import Evaluation, Evaluator, LimitUnreachable, TrainingLedger
from petra_optuna.evaluation.preview import Preview
from petra_optuna.pipeline import Pipeline
from petra_optuna.samplers import PetraSampler, fail_orphans
from petra_optuna.study import Objective, TrialRecord, why_no_file

VALUES = {"accuracy": 0.9, "latency_ms": 1.0, "throughput_per_s": 1.0, "size_bytes": 1.0}


class FakeEvaluator:
    """Gives each pipeline the same values, or raises what it is told to."""

    baseline_quality = None

    def __init__(self, raised: BaseException | None = None, **values: float) -> None:
        self.raised = raised
        self.values = {**VALUES, **values}

    def evaluate(self, _pipeline: Pipeline, _judge: Any, ledger: TrainingLedger) -> Evaluation:
        ledger.train_s = 2.0
        if self.raised is not None:
            raise self.raised
        return cast(Evaluation, self)


def _objective(evaluator: FakeEvaluator, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Objective:
    monkeypatch.setattr(Objective, "_store", lambda self, trial, evaluation: None)
    store = FileSystemArtifactStore(str(folder))
    return Objective(cast(Evaluator, evaluator), SPACE, specification_with(), store)


def _study(sampler: BaseSampler | None = None) -> optuna.Study:
    sampler = sampler or PetraSampler(SPACE, seed=0, population_size=4)
    return optuna.create_study(directions=["maximize", "minimize", "maximize", "minimize"], sampler=sampler)


FOREIGN: dict[str, dict[str, Any]] = {
    "too long": {"length": 9},
    "no number": {"length": "many"},
    "unknown operation": {"length": 1, "n0.op": "polish"},
    "another type": {"length": 1, "n0.op": 3},
    "out of range": {"length": 1, "n0.op": "prune", "n0.prune.removed": 7.0},
    "unknown conversion": {"length": 0, "convert.op": "int3"},
}


@pytest.mark.filterwarnings("ignore:Fixed parameter")
@pytest.mark.parametrize("sampler", ["petra", "random"])
def test_enqueued_parameters_that_are_not_of_the_space_fail_their_trial_alone(
    sampler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = _study(RandomSampler(0) if sampler == "random" else None)
    for params in FOREIGN.values():
        study.enqueue_trial(params)
    objective = _objective(FakeEvaluator(), tmp_path, monkeypatch)
    study.optimize(objective, n_trials=len(FOREIGN) + 3, catch=(TrialError,))
    *foreign, first, second, third = study.trials
    for trial, case in zip(foreign, FOREIGN, strict=True):
        assert trial.state == TrialState.FAIL, case
        assert "OperationFailed" in (TrialRecord(trial).failure or ""), case
    assert {trial.state for trial in (first, second, third)} == {TrialState.COMPLETE}
    assert fail_orphans(study, lambda _: True) == []  # the same parameters would fail again


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_sampler_that_cannot_plan_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = _study(PartialFixedSampler({"length": 9}, PetraSampler(SPACE, seed=0)))
    with pytest.raises(PipelineError):
        study.optimize(_objective(FakeEvaluator(), tmp_path, monkeypatch), n_trials=1, catch=(TrialError,))
    assert TrialRecord(study.trials[0]).failure


PREVIEW = Preview(parameters=1, macs=1, size_bytes=9.0, certain=True)
ENDS: dict[str, tuple[FakeEvaluator, str, bool]] = {
    "a pipeline's fault": (FakeEvaluator(LoweringFailed("no kernel")), "LoweringFailed: no kernel", False),
    "no number": (FakeEvaluator(latency_ms=math.nan), "latency_ms could not be measured", False),
    "a limit": (FakeEvaluator(LimitUnreachable("at least 9 bytes", PREVIEW)), "at least 9 bytes", False),
    "a fault of ours": (
        FakeEvaluator(IndexError("list index\nout of range")),
        "IndexError: list index",
        False,
    ),
    "ctrl-c": (FakeEvaluator(KeyboardInterrupt()), "it was interrupted", True),
    "a full disk": (
        FakeEvaluator(OSError(28, "No space left on device", "/tmp/model.onnx")),
        "/tmp/model.onnx: No space left on device",
        True,
    ),
    "a cache": (FakeEvaluator(StudyError("the cache cannot be written")), "cache cannot be written", True),
}


@pytest.mark.parametrize("case", ENDS)
def test_however_a_trial_ends_its_reason_and_its_ledger_are_stored(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator, reason, is_run_again = ENDS[case]
    study = _study()
    ends_the_run = {"a fault of ours": IndexError, "ctrl-c": KeyboardInterrupt}.get(
        case, StudyError if is_run_again else None
    )
    with pytest.raises(ends_the_run) if ends_the_run else contextlib.nullcontext():
        study.optimize(_objective(evaluator, tmp_path, monkeypatch), n_trials=1, catch=(TrialError,))
    (trial,) = study.trials
    assert trial.state == (TrialState.PRUNED if case == "a limit" else TrialState.FAIL)
    assert reason in (TrialRecord(trial).failure or "")
    assert TrialRecord(trial).ledger.train_s == 2.0
    assert fail_orphans(study, lambda _: True) == ([0] if is_run_again else [])


def test_a_trial_without_a_file_says_why_whatever_it_is() -> None:
    study = _study()
    study.add_trial(optuna.trial.create_trial(values=[1.0] * 4))
    study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
    killed = study.ask()
    TrialRecord(killed).store_worker({"host": "here", "pid": 1, "started": 0.0})
    assert why_no_file(study.trials[2]) == "it has not finished"
    study.tell(killed, state=TrialState.FAIL)
    assert [why_no_file(trial) for trial in study.trials] == [
        "it was added from outside",
        "it was added from outside",
        "its process ended before it",
    ]


@pytest.mark.parametrize("hidden", [AssertionError, UnboundLocalError, KeyError])
def test_a_lost_database_is_one_line_whatever_hides_it(hidden: type[Exception]) -> None:
    """Optuna trips over variables of its own while the error of the database is on its way."""

    def lose() -> None:
        try:
            try:
                raise ConnectionError("server closed the connection")
            except ConnectionError as error:
                raise optuna.exceptions.StorageInternalError("during the commit") from error
        except optuna.exceptions.StorageInternalError:
            try:
                raise ValueError("between")
            finally:
                raise hidden("updated_state")

    with (
        pytest.raises(StudyError, match=r"cannot be used \(server closed the connection\)"),
        one_line_storage_errors(),
    ):
        lose()


def test_an_error_that_is_not_of_the_database_stays_as_it_is() -> None:
    for error in (KeyError("length"), StudyError("no study"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, one_line_storage_errors():
            raise error
        assert raised.value is error
