"""What a confirmation found out of a front."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from petra_optuna.results.front import Row, StudyFront, change_percent


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; both ends are the value where nothing is uncertain.

    Attributes:
        value, low, high: Value and ends of its interval, in the unit of the value's name.
        tie: Share below which the difference of two values is a tie, whatever their intervals.
    """

    value: float
    low: float
    high: float
    tie: float = 0.0

    @classmethod
    def exact(cls, value: float) -> Estimate:
        """A value without uncertainty."""
        return cls(value, value, value)


@dataclasses.dataclass(frozen=True)
class SeedRun:
    """One retraining: its seed, and its quality on the test split, or why it has none."""

    seed: int
    quality: float | None = None
    failure: str | None = None


@dataclasses.dataclass(frozen=True)
class Member:
    """A pipeline of the front.

    Attributes:
        trial: Trial number.
        notation, pipeline: The paper's notation; the same with the fields that differ from their defaults.
        values: Values by objective: quality on the test split, the others measured again or counted.
        selection: Values by objective that the search chose by.
        difference: Quality less the baseline's, over the same resamples.
        rank: 0 where no member dominates it within noise, else one more than that of a member that does.
        dominated_by: Trials that dominate it within noise.
        seeds: Retrainings in the order of their seeds; empty where none was asked for.
        seedless: Whether another seed gave the very same file, so that one retraining is enough.
    """

    trial: int
    notation: str
    pipeline: str
    values: Mapping[str, Estimate]
    selection: Mapping[str, float]
    difference: Estimate
    rank: int
    dominated_by: tuple[int, ...]
    seeds: tuple[SeedRun, ...] = ()
    seedless: bool = False


@dataclasses.dataclass(frozen=True)
class Confirmation:
    """A front on the test split.

    Attributes:
        study: Study name.
        metric: Name of the quality.
        directions: ``maximize`` or ``minimize`` by objective.
        baseline: Values of the baseline: its quality on the test split, the others as the study froze them.
        members: Members of the front, best quality on the selection split first.
        failures: Why a file could not be confirmed, by trial.
        samples: Samples of the test split.
        resamples: Resamples of the bootstrap.
        rounds: Rounds of timing.
        reading: Number of this reading of the test split; only reading 1 is unbiased.
    """

    study: str
    metric: str
    directions: Mapping[str, str]
    baseline: Mapping[str, Estimate]
    members: tuple[Member, ...]
    failures: Mapping[str, str]
    samples: int
    resamples: int
    rounds: int
    reading: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Confirmation:
        """Inverse of ``to_dict``."""
        members = tuple(_member(member) for member in data["members"])
        return cls(**{**data, "baseline": _estimates(data["baseline"]), "members": members})

    def front(self) -> StudyFront:
        """The values alone, as ``results.front`` gives those of the selection split."""
        baseline = {name: estimate.value for name, estimate in self.baseline.items()}
        rows = []
        for member in self.members:
            values = {name: estimate.value for name, estimate in member.values.items()}
            change = {name: change_percent(values[name], baseline[name]) for name in values}
            rows.append(Row(member.trial, member.pipeline, values, change))
        return StudyFront(self.study, self.directions, baseline, tuple(rows))


def _member(data: Mapping[str, Any]) -> Member:
    return Member(
        **{
            **data,
            "values": _estimates(data["values"]),
            "difference": Estimate(**data["difference"]),
            "dominated_by": tuple(data["dominated_by"]),
            "seeds": tuple(SeedRun(**run) for run in data["seeds"]),
        }
    )


def _estimates(data: Mapping[str, Any]) -> dict[str, Estimate]:
    return {name: Estimate(**fields) for name, fields in data.items()}
