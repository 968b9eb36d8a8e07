"""What a trial holds of ours besides its values: the only place that knows the keys of its user attributes.

The keys never changed with the names in code; names inside the evaluation's record did. It is read through
this module, so that nothing else knows of an older form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, NotRequired, TypedDict

from optuna.trial import BaseTrial, FrozenTrial, TrialState

from petra_optuna.errors import PipelineError
from petra_optuna.evaluation import RungResult, TrainingLedger
from petra_optuna.operations import EVERY_OPERATION
from petra_optuna.pipeline import Pipeline
from petra_optuna.samplers import SHAPE, ShapeReadings

EVALUATION: Final = "petra:evaluation"
"""All that is known of the trial besides its values, one JSON object."""
FAILURE: Final = "petra:failure"
"""Why the trial failed or was stopped, one line."""
RUNG: Final = "petra:judged:"
"""The trial's result at a rung (``RungDecision``); the rung's number follows."""
LEDGER: Final = "petra:savings"
"""What the trial trained and was spared (``TrainingLedger``); stopped and failed trials have it too."""
WORKER: Final = "petra:worker"
"""Host and process that run the trial, to recognise orphans (``WorkerIdentity``)."""

_NOT_STORED = {"repair": None, "convolutions": None, "stopped": None}
"""What earlier releases did not store of an evaluation, because they did not do it."""


class WorkerIdentity(TypedDict):
    """A process on a host; ``study/worker_identity.py`` reads and writes it.

    Attributes:
        host: Name of the host.
        pid: Number of the process.
        started: Start of the process, seconds since 1970.
        process_table: What the number counts in; not stored by earlier releases.
        start_mark: What tells the process from a later one with its number; stored with ``process_table``.
    """

    host: str
    pid: int
    started: float
    process_table: NotRequired[str]
    start_mark: NotRequired[float]


@dataclasses.dataclass(frozen=True)
class RungDecision:
    """A trial's result at a rung, and whether it trains on from there.

    Attributes:
        result: Result at the rung.
        trains_on: Whether the trial trains on; False until that is decided.
    """

    result: RungResult
    trains_on: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` is its inverse."""
        return {**self.result.to_dict(), "trains_on": self.trains_on}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RungDecision:
        """Inverse of ``to_dict``."""
        fields = dict(data)
        trains_on = fields.pop("trains_on")
        return cls(RungResult.from_dict(fields), trains_on)


class TrialRecord:
    """Reads what a trial stores besides its values, and writes it for a running one.

    Args:
        trial: Trial in any state; what is written to a copy does not reach the storage.
    """

    def __init__(self, trial: BaseTrial) -> None:
        self._trial = trial

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """``Evaluation.to_dict`` and the artifacts' numbers, in the present form; None where not stored."""
        stored = self.evaluation_fields
        return None if stored is None else _present_evaluation(stored)

    @property
    def evaluation_fields(self) -> dict[str, Any] | None:
        """The evaluation as it is stored, in whatever form; None where not stored."""
        return self._trial.user_attrs.get(EVALUATION)

    @property
    def foreign_cores(self) -> float | None:
        """Most cores that other processes kept busy while the file was measured; None where not counted."""
        if self.evaluation is None:
            return None
        measured = self.evaluation["measurements"]
        counted = [one["foreign_cores"] for one in (measured["latency"], *measured["throughput"])]
        return max((cores for cores in counted if cores is not None), default=None)

    @property
    def failure(self) -> str | None:
        """Why the trial has no file; None where no reason is stored."""
        return self._trial.user_attrs.get(FAILURE)

    @property
    def ledger(self) -> TrainingLedger:
        """What the trial trained and was spared; zeros where nothing is stored."""
        stored = self.ledger_fields
        names = [field.name for field in dataclasses.fields(TrainingLedger)]
        return TrainingLedger(**{name: stored[name] for name in names if name in stored})

    @property
    def ledger_fields(self) -> dict[str, Any]:
        """The training ledger as it is stored, in whatever form; empty where nothing is stored."""
        fields: dict[str, Any] = self._trial.user_attrs.get(LEDGER, {})
        return fields

    @property
    def worker(self) -> WorkerIdentity | None:
        """The process that runs the trial, or ran it; None where it did not sign."""
        return self._trial.user_attrs.get(WORKER)

    def rung(self, number: int) -> RungDecision | None:
        """The trial's result at a rung; None where it has none, or one of before ``trains_on`` was stored."""
        stored = self.rung_fields(number)
        return None if stored is None or "trains_on" not in stored else RungDecision.from_dict(stored)

    def rung_fields(self, number: int) -> dict[str, Any] | None:
        """The trial's result at a rung as it is stored, in whatever form; None where it has none."""
        return self._trial.user_attrs.get(f"{RUNG}{number}")

    def store_evaluation(self, record: Mapping[str, Any]) -> None:
        """Store ``Evaluation.to_dict`` with the numbers of the artifacts."""
        self._trial.set_user_attr(EVALUATION, record)

    def store_shape(self, readings: ShapeReadings) -> None:
        """Store what was measured of the file's shape, from which the trial's values are read anew."""
        self._trial.set_user_attr(SHAPE, readings.to_dict())

    def store_failure(self, reason: str) -> None:
        """Store in one line why the trial has no file."""
        self._trial.set_user_attr(FAILURE, reason)

    def store_ledger(self, ledger: TrainingLedger) -> None:
        """Store what the trial trained and was spared."""
        self._trial.set_user_attr(LEDGER, dataclasses.asdict(ledger))

    def store_worker(self, worker: WorkerIdentity) -> None:
        """Store the process that runs the trial."""
        self._trial.set_user_attr(WORKER, worker)

    def store_rung(self, decision: RungDecision) -> None:
        """Store the trial's result at a rung, over what was stored there before."""
        self._trial.set_user_attr(f"{RUNG}{decision.result.rung}", decision.to_dict())


def has_file(trial: FrozenTrial) -> bool:
    """Whether a trial has been evaluated here; one that somebody added has values alone."""
    return trial.state == TrialState.COMPLETE and EVALUATION in trial.user_attrs


def why_no_file(trial: FrozenTrial) -> str:
    """Why a trial has no file, in one line."""
    record = TrialRecord(trial)
    if record.failure is not None:
        return record.failure
    if not trial.state.is_finished():
        return "it has not finished"
    return "its process ended before it" if record.worker else "it was added from outside"


def _present_evaluation(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a trial's evaluation in the present form (``Evaluation.to_dict`` and artifact numbers).

    The one throughput measurement of an earlier release becomes a list of one. ``parity`` is None where a
    release wrote no certificate. A pipeline whose fields have other names now is described by these; one with
    operations of the user's own stays as it is stored.
    """
    record = {**_NOT_STORED, **stored}
    if "measurements" in record:
        record["measurements"] = _present_measurements(record["measurements"])
        batch = record["measurements"]["throughput"][0]["batch"]
        record.setdefault("best_throughput_batch", batch)
    if "lowering" in record:
        parity = record["lowering"].get("parity") or {}
        certificate = parity if "samples" in parity else None
        record["lowering"] = {"convolutions": None, **record["lowering"], "parity": certificate}
    return record | _present_pipeline(record["pipeline"])


def _present_measurements(stored: Mapping[str, Any]) -> dict[str, Any]:
    throughput = stored["throughput"]
    several = [throughput] if isinstance(throughput, dict) else throughput
    return {
        **stored,
        "latency": _present_measurement(stored["latency"]),
        "throughput": [_present_measurement(one) for one in several],
        "energy": _with_present_names(stored["energy"]) if stored.get("energy") else None,
    }


def _present_measurement(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {"foreign_cores": None, "runtime": None, **_with_present_names(stored)}


def _with_present_names(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a measurement, in which ``baseline_ms`` was ``yardstick_ms`` and so on."""
    return {name.replace("yardstick_", "baseline_"): value for name, value in stored.items()}


def _present_pipeline(stored: dict[str, Any]) -> dict[str, Any]:
    """What a record says of its pipeline, where that is to be said otherwise now."""
    try:
        pipeline = Pipeline.from_dict(stored, EVERY_OPERATION)
    except PipelineError:
        return {}
    present = pipeline.to_dict()
    if present == stored:
        return {}
    return {"pipeline": present, "description": pipeline.describe(), "hash": pipeline.hash}
