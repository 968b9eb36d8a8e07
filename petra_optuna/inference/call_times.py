"""How long calls of each batch size take, with their spread."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from petra_optuna.aliases import Array
from petra_optuna.errors import UserError

Counts = npt.NDArray[np.int64]
"""An array of whole numbers."""


@dataclasses.dataclass(frozen=True)
class CallTimes:
    """Measured seconds of calls by batch size.

    A batch between two measured ones has the quantiles between theirs, linear in the batch, so that the mean
    is linear too. A batch below the smallest measured one takes the time of that: such a call is padded.

    Attributes:
        seconds: Batch size -> seconds of each measured call of that size.

    Raises:
        UserError: On construction, when there is no batch, a batch is not a whole number from 1, a batch has
            no calls, or a time is not positive and finite.
    """

    seconds: Mapping[int, Sequence[float]]

    def __post_init__(self) -> None:
        """Check the times and sort them."""
        if not self.seconds:
            raise UserError("call times hold no batch size; measure at least one")
        for batch, values in self.seconds.items():
            if not isinstance(batch, int) or batch < 1:
                raise UserError(f"call times hold batch size {batch!r}; batch sizes are whole numbers from 1")
            if not len(values):
                raise UserError(f"call times of batch {batch} hold no call; measure at least one")
            bad = [value for value in values if not (math.isfinite(value) and value > 0)]
            if bad:
                raise UserError(
                    f"a call time of batch {batch} is {bad[0]:g} s; times are positive, measure again"
                )
        ordered = {batch: tuple(sorted(map(float, self.seconds[batch]))) for batch in sorted(self.seconds)}
        object.__setattr__(self, "seconds", MappingProxyType(ordered))

    @property
    def largest_batch(self) -> int:
        """Largest measured batch size. Larger ones have no times."""
        return max(self.seconds)

    def mean(self, batch: int) -> float:
        """Mean seconds of a call.

        Raises:
            UserError: When the batch is larger than the largest measured one.
        """
        self._check(batch)
        return float(self.means[batch - 1])

    def quantile(self, batch: int, share: float) -> float:
        """Seconds that a share (0 to 1) of the calls does not exceed.

        Raises:
            UserError: When the batch is larger than the largest measured one.
        """
        self._check(batch)
        return float(self.at(np.array([batch]), np.array([share]))[0])

    def draw(self, batch: int, rng: np.random.Generator) -> float:
        """Seconds of one call at random.

        Raises:
            UserError: When the batch is larger than the largest measured one.
        """
        return float(self.draws(batch, 1, rng)[0])

    def draws(self, batch: int, count: int, rng: np.random.Generator) -> Array:
        """Seconds of so many calls at random, shape (count,).

        Raises:
            UserError: When the batch is larger than the largest measured one.
        """
        self._check(batch)
        return self.at(np.full(count, batch), rng.random(count))

    def at(self, batches: Counts, shares: Array) -> Array:
        """Quantiles of calls of many sizes at once; uniform shares make them draws.

        Args:
            batches: Batch sizes from 1 to the largest measured one, of any shape.
            shares: Shares from 0 to 1, of a shape that broadcasts with that of ``batches``.

        Returns:
            Seconds, of the shape of both.
        """
        table = self._table
        lower, upper, weight = (part[batches - 1] for part in (table.lower, table.upper, table.weight))
        return (1 - weight) * table.pick(lower, shares) + weight * table.pick(upper, shares)

    @functools.cached_property
    def means(self) -> Array:
        """Mean seconds of calls of 1, 2, ... up to the largest measured batch size, shape (largest,)."""
        sizes = np.arange(1, self.largest_batch + 1)
        return np.interp(
            sizes, list(self.seconds), [math.fsum(row) / len(row) for row in self.seconds.values()]
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` is its inverse."""
        return {str(batch): list(values) for batch, values in self.seconds.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CallTimes:
        """Inverse of ``to_dict``."""
        return cls({int(batch): values for batch, values in data.items()})

    def _check(self, batch: int) -> None:
        if not 1 <= batch <= self.largest_batch:
            raise UserError(
                f"batch is {batch!r}; call times reach from 1 to {self.largest_batch}, measure more of them"
            )

    @functools.cached_property
    def _table(self) -> _Table:
        return _Table(self.seconds)


class _Table:
    """Sorted times of all measured sizes in one row, and the two measured neighbours of every batch size.

    Attributes:
        lower, upper: Numbers of the measured sizes around batch 1, 2, ..., shape (largest,).
        weight: Weight of the upper one, shape (largest,).
    """

    def __init__(self, seconds: Mapping[int, Sequence[float]]) -> None:
        measured = np.array(list(seconds))
        sizes = np.arange(1, measured[-1] + 1)
        self.upper = np.searchsorted(measured, sizes)
        self.lower = np.maximum(self.upper - 1, 0)
        gaps = np.maximum(measured[self.upper] - measured[self.lower], 1)
        self.weight = np.clip((sizes - measured[self.lower]) / gaps, 0.0, 1.0)
        self._lengths = np.array([len(row) for row in seconds.values()])
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._values = np.concatenate([np.asarray(row, dtype=np.float64) for row in seconds.values()])

    def pick(self, sizes: Counts, shares: Array) -> Array:
        """The times of measured sizes, given by number, at these shares (inverse of the distribution)."""
        lengths = self._lengths[sizes]
        ranks = np.minimum((shares * lengths).astype(np.int64), lengths - 1)
        seconds: Array = self._values[self._starts[sizes] + ranks]
        return seconds
