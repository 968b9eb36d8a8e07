"""Dominance, the non-dominated set and its hypervolume, with directions and scales made explicit.

Inside the package every objective is turned so that smaller is better, once, by ``minimised``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import moocore
import numpy as np
import numpy.typing as npt

from petra_optuna.aliases import Array, Direction
from petra_optuna.errors import StudyError

LINEAR_SLACK = 0.1
"""How much worse than the original, as a share of it, still counts on a linear scale."""

LOG_SLACK = 1.25
"""How many times worse than the original still counts on a log scale."""

FARTHEST = 1e6
"""Unit coordinates are held within this, so that an infinite value has no infinite volume."""


def minimised(values: npt.ArrayLike, directions: Sequence[Direction]) -> Array:
    """Values, shape (n, m), with the objectives to maximise negated.

    Raises:
        StudyError: When a direction is unknown or their number is not m.
    """
    if unknown := [direction for direction in directions if direction not in ("minimize", "maximize")]:
        raise StudyError(f"directions must be minimize or maximize, got {unknown[0]!r}")
    table = np.asarray(values, dtype=float).reshape(-1, len(directions))
    signs = np.array([-1.0 if direction == "maximize" else 1.0 for direction in directions])
    return np.asarray(table * signs)


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Scale and reference point of the hypervolume, frozen from the original model's values.

    In unit coordinates the original is at 0 in every objective and the worst that counts at 1, so the
    original alone has hypervolume 1. On a log scale the worst is 1.25 times worse than the original, on a
    linear scale worse by a share of it, a tenth where nothing else is said. Which of two contributions is
    larger does not depend on the unit of either objective, only on the reference point and on the log scales.

    Attributes:
        reference: Values of the original, one per objective, in the study's directions.
        log: Whether each objective counts by ratio (latency, size, throughput).
        slack: How much worse than the original still counts in the first objective, as a share of it, where
            that is on a linear scale.

    Raises:
        StudyError: On construction, when the lengths differ or a log scale has a reference <= 0.
    """

    reference: tuple[float, ...]
    log: tuple[bool, ...]
    slack: float = LINEAR_SLACK

    def __post_init__(self) -> None:
        """Check the rules named in the class docstring."""
        if len(self.reference) != len(self.log):
            raise StudyError(f"bounds need one log flag per value, got {self.reference} and {self.log}")
        for value, log in zip(self.reference, self.log, strict=True):
            if not np.isfinite(value) or (log and value <= 0):
                raise StudyError(f"bounds need finite values, positive on a log scale, got {self.reference}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Bounds:
        """Inverse of ``to_dict``."""
        return cls(
            tuple(float(value) for value in data["reference"]),
            tuple(bool(log) for log in data["log"]),
            float(data.get("slack", LINEAR_SLACK)),
        )

    @classmethod
    def from_values(cls, values: npt.ArrayLike, directions: Sequence[Direction]) -> Bounds:
        """Linear bounds at the worst finite value of each objective, for a study without an original."""
        table = minimised(values, directions)
        worst = np.max(np.where(np.isfinite(table), table, -np.inf), axis=0, initial=-np.inf)
        reference = minimised(np.where(np.isfinite(worst), worst, 0.0), directions)[0]
        return cls(tuple(float(value) for value in reference), (False,) * len(directions))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"reference": list(self.reference), "log": list(self.log), "slack": self.slack}

    def unit(self, values: npt.ArrayLike, directions: Sequence[Direction]) -> Array:
        """Values, shape (n, m), in unit coordinates, smaller is better."""
        table = np.asarray(values, dtype=float).reshape(-1, len(self.reference))
        slacks = (self.slack, *[LINEAR_SLACK] * (len(self.reference) - 1))
        columns = []
        for column, reference, log, slack in zip(table.T, self.reference, self.log, slacks, strict=True):
            if log:
                tiny = np.finfo(float).tiny
                columns.append(np.log(np.maximum(column, tiny) / reference) / np.log(LOG_SLACK))
            else:
                columns.append((column - reference) / (slack * abs(reference) or 1.0))
        return np.clip(minimised(np.column_stack(columns), directions), -FARTHEST, FARTHEST)


def non_dominated(
    values: npt.ArrayLike, directions: Sequence[Direction], violations: npt.ArrayLike | None = None
) -> tuple[int, ...]:
    """Indices of the rows that no other row dominates; equal rows are all kept.

    Args:
        values: Values of n points, shape (n, m).
        directions: Directions of the m objectives.
        violations: Sum of violations, shape (n,), 0 where feasible; infeasible rows are neither in the front
            nor dominate.
    """
    table = minimised(values, directions)
    feasible = np.full(len(table), True) if violations is None else np.asarray(violations) <= 0
    rows = np.flatnonzero(feasible)
    if not rows.size:
        return ()
    kept = moocore.is_nondominated(table[rows], keep_weakly=True)
    return tuple(int(row) for row in rows[kept])


def hypervolume(values: npt.ArrayLike, directions: Sequence[Direction], bounds: Bounds) -> float:
    """Volume that the rows dominate, in unit coordinates: 1 for the original alone, 0 for no rows."""
    return unit_hypervolume(bounds.unit(values, directions))


def unit_hypervolume(units: Array) -> float:
    """Volume between points in unit coordinates, shape (n, m), and the reference point at 1."""
    padded = _two_objectives(units)
    return float(moocore.hypervolume(padded, ref=np.ones(padded.shape[1])))


def contributions(units: Array) -> Array:
    """Volume, shape (n,), that each of n non-dominated points adds to the others in unit coordinates."""
    padded = _two_objectives(units)
    return np.asarray(moocore.hv_contributions(padded, ref=np.ones(padded.shape[1])))


def volume_gain(point: Array, front: Array) -> float:
    """Volume that a point adds to a front, in unit coordinates.

    It is the volume that the point dominates, less what the front dominates of that; most of a large front
    has no part in it.

    Args:
        point: A point inside the bounds, shape (m,).
        front: Points, shape (n, m).
    """
    shared = np.maximum(front, point)
    shared = shared[np.all(shared < 1, axis=1)]
    alone = float(np.prod(1 - point))
    return alone - unit_hypervolume(shared[moocore.is_nondominated(shared)]) if len(shared) else alone


def ranks(points: Array) -> npt.NDArray[np.int64]:
    """Non-domination rank of minimised points, shape (n,): 0 for the front, 1 for the next."""
    return np.asarray(moocore.pareto_rank(points), dtype=np.int64)


def _two_objectives(units: Array) -> Array:
    """Units with a second objective beside a single one: moocore needs two, and a constant adds no volume."""
    return units if units.shape[1] > 1 else np.column_stack([units, np.zeros(len(units))])
