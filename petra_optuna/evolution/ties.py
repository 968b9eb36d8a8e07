"""Comparing points whose values are known with an interval: what overlaps is a tie."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import moocore
import numpy as np
import numpy.typing as npt

from petra_optuna.aliases import Array


@dataclasses.dataclass(frozen=True)
class MeasuredPoint:
    """Minimised values, and the interval in which each is known; an exact value is its own interval.

    Attributes:
        values: Minimised values, shape (m,).
        low, high: Ends of their intervals, shape (m,).
    """

    values: Array
    low: Array
    high: Array

    @classmethod
    def exact(cls, values: npt.ArrayLike) -> MeasuredPoint:
        """A point whose values are known exactly."""
        array = np.asarray(values, dtype=float)
        return cls(array, array, array)

    def covers(self, other: MeasuredPoint) -> bool:
        """Whether it is at least as good in every value, as far as the intervals tell."""
        return bool(np.all(self.low <= other.high))

    def dominates(self, other: MeasuredPoint) -> bool:
        """Whether it covers the other and is clearly better in some value."""
        return self.covers(other) and bool(np.any(self.high < other.low))


def tied_front(points: Sequence[MeasuredPoint]) -> dict[int, tuple[int, ...]]:
    """The non-dominated points, each with those that it stands for because they are a tie with it.

    Of points that cover one another, the best in the values that are known exactly stands for the others. A
    point of the front that another one covers is not on it: what is better of it may be noise.

    Args:
        points: Points with m values each.

    Returns:
        Index of each point of the front -> indices of the points that it stands for, ascending.
    """
    if not points:
        return {}
    values = np.array([point.values for point in points])
    low, high = np.array([point.low for point in points]), np.array([point.high for point in points])
    on_front = moocore.is_nondominated(values, keep_weakly=True)
    stands_for: dict[int, list[int]] = {}
    shown: list[int] = []
    for row in _exact_first(values, np.any(low < high, axis=0)):
        if not on_front[row]:
            continue
        covering = np.flatnonzero(np.all(low[shown] <= high[row], axis=1))
        if covering.size:
            stands_for[shown[covering[0]]].append(row)
        else:
            stands_for[row] = []
            shown.append(row)
    free = ~on_front
    for row, tied in stands_for.items():
        same = free & np.all(low[row] <= high, axis=1) & np.all(low <= high[row], axis=1)
        tied.extend(int(other) for other in np.flatnonzero(same))
        free &= ~same
    return {row: tuple(sorted(tied)) for row, tied in stands_for.items()}


def _exact_first(values: Array, noisy: npt.NDArray[np.bool_]) -> list[int]:
    """Rows in the order of their exact values, then of the others: what covers a row comes before it."""
    columns = [*np.flatnonzero(~noisy), *np.flatnonzero(noisy)]
    return [int(row) for row in np.lexsort([values[:, column] for column in reversed(columns)])]
