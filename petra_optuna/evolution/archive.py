"""Archives for selection and credit, kept up to date one point at a time.

They give exactly what the functions of ``front`` and ``selection`` give on the table of all points, without
reading it again. Neither holds anything that cannot be made anew from the points.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from petra_optuna.aliases import Array
from petra_optuna.evolution.ties import MeasuredPoint

Key = TypeVar("Key", bound=Hashable)


class FrontTrace:
    """The non-dominated front as points arrive one after another; the latest arrivals can be taken back.

    Args:
        dimensions: Number of objectives m.
    """

    def __init__(self, dimensions: int) -> None:
        # Rows of the front; of each its values, then the lower ends of their intervals.
        self._front: Array = np.empty((0, 2, dimensions))
        # For each arrival that entered: which rows of the front it beat, and these rows.
        self._removed: list[tuple[npt.NDArray[np.bool_], Array] | None] = []

    @property
    def front(self) -> Array:
        """Minimised points of the front, shape (f, m)."""
        return self._front[:, 0]

    def __len__(self) -> int:
        """Number of arrivals so far."""
        return len(self._removed)

    def push(self, point: MeasuredPoint | None) -> bool:
        """Let a point arrive; None for one that may not enter.

        Returns:
            Whether it entered the front: no point of the front covers it, so that it is clearly better than
            each in some value.
        """
        if point is None or bool(np.any(np.all(self._front[:, 1] <= point.high, axis=1))):
            self._removed.append(None)
            return False
        beaten = np.all(point.values <= self._front[:, 0], axis=1)
        self._removed.append((beaten, self._front[beaten]))
        self._front = np.concatenate([self._front[~beaten], [[point.values, point.low]]])
        return True

    def pop(self) -> bool:
        """Take the latest arrival back; True when it had entered the front."""
        removed = self._removed.pop()
        if removed is None:
            return False
        # Every point gets its old row back, so that what entered last always stands last.
        beaten, points = removed
        front = np.empty((len(beaten), *self._front.shape[1:]))
        front[beaten], front[~beaten] = points, self._front[:-1]
        self._front = front
        return True


class Skyband(Generic[Key]):
    """The points that fewer than ``depth`` others dominate (the k-skyband, Papadias et al. 2005).

    It holds every point that can be among the best ``depth`` by non-domination rank, with the rank that
    it has among all points: a point's dominators are each dominated by fewer points than itself, so all
    chains of dominators that end in the band lie in it. It does not depend on the order of arrival.

    Args:
        depth: Number of the best that can be asked for.
        dimensions: Number of objectives m.

    Attributes:
        keys: Keys of the points held, in order of arrival.
        points: Minimised values of these points, shape (n, m).
        dominators: Number of points that dominate each of them, shape (n,).
    """

    def __init__(self, depth: int, dimensions: int) -> None:
        self._depth = depth
        self.dominators: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.keys: list[Key] = []
        self.points: Array = np.empty((0, dimensions))

    def add(self, key: Key, point: Array) -> bool:
        """Add a minimised point, shape (m,); False when the band stays as it is."""
        as_good = np.all(self.points <= point, axis=1)
        as_bad = np.all(point <= self.points, axis=1)
        dominators = int(np.sum(as_good & ~as_bad))
        if dominators >= self._depth:
            return False
        self.dominators = np.append(self.dominators + (as_bad & ~as_good), dominators)
        kept = self.dominators < self._depth
        self.dominators = self.dominators[kept]
        self.keys = [held for held, keep in zip([*self.keys, key], kept, strict=True) if keep]
        self.points = np.vstack([self.points, point])[kept]
        return True
