"""What a trial of a tuning study stores besides its value."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial

from petra_optuna.inference import Recommendation, ServerCounts

RECORD: Final = "petra:tuned"
"""Key of the record among a trial's user attributes."""


@dataclasses.dataclass(frozen=True)
class RungReached:
    """A trial at a rung.

    Attributes:
        iteration: Iteration of the budget.
        epochs: Epochs so far.
        data_fraction: Share of the data of the last ones.
        train_s: Seconds of training so far.
        quality: The task's metric on the selection split.
        value: The objective.
    """

    iteration: int
    epochs: int
    data_fraction: float
    train_s: float
    quality: float
    value: float


@dataclasses.dataclass(frozen=True)
class TunedRecord:
    """What is known of a trial.

    Attributes:
        rungs: The rungs that it reached, in order.
        trial_s: Seconds of the whole trial.
        waited_s: Seconds for which it waited for the inference server.
        train_j: Joules of training; None where nothing counts them.
        energy_source: What counted or estimated energies; empty where nobody asked.
        quality: The task's metric of the file on the selection split; None where the trial was ended early.
        size_bytes: Bytes of the file; None where there is none.
        artifact_id: Number of the file in the artifact store; None where there is none.
        recommendation: How to serve it; None without an inference objective.
    """

    rungs: tuple[RungReached, ...]
    trial_s: float = 0.0
    waited_s: float = 0.0
    train_j: float | None = None
    energy_source: str = ""
    quality: float | None = None
    size_bytes: int | None = None
    artifact_id: str | None = None
    recommendation: Recommendation | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` is its inverse."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **fields,
            "rungs": [dataclasses.asdict(rung) for rung in self.rungs],
            "recommendation": self.recommendation and self.recommendation.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TunedRecord:
        """Inverse of ``to_dict``."""
        stored = data["recommendation"]
        return cls(
            **{
                **data,
                "rungs": tuple(RungReached(**rung) for rung in data["rungs"]),
                "recommendation": None if stored is None else Recommendation.from_dict(stored),
            }
        )


COUNTS: Final = "petra:inference_counts"
"""Beginning of the keys of what the inference servers of a study's runs did (``ServerCounts``), one a run."""


@dataclasses.dataclass(frozen=True)
class KeptCounts:
    """Keeps what the inference server of one run does with the study, after each trial.

    Attributes:
        counts: What the server does.
        key: Key of the run; runs at the same time have keys of their own.
    """

    counts: ServerCounts
    key: str = dataclasses.field(default_factory=lambda: f"{COUNTS}:{uuid.uuid4().hex[:12]}")

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Store them, over what was stored before."""
        study.set_user_attr(self.key, dataclasses.asdict(self.counts))


def counts_of(study: optuna.Study) -> ServerCounts:
    """What the inference servers of all runs of the study did, summed."""
    runs = [counts for key, counts in study.user_attrs.items() if key.startswith(COUNTS)]
    names = [field.name for field in dataclasses.fields(ServerCounts)]
    return ServerCounts(**{name: sum(counts[name] for counts in runs) for name in names})


def store_record(trial: optuna.Trial, record: TunedRecord) -> None:
    """Store what is known of a running trial, over what was stored before."""
    trial.set_user_attr(RECORD, record.to_dict())


def record_of(trial: FrozenTrial) -> TunedRecord | None:
    """What a trial stores; None where it has reached no rung."""
    stored = trial.user_attrs.get(RECORD)
    return None if stored is None else TunedRecord.from_dict(stored)
