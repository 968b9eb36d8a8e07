"""Parts of environmental selection: ranked levels, subsets by hypervolume, random rows, violations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from petra_optuna.aliases import Array
from petra_optuna.evolution.front import contributions, ranks

Survival = Literal["hypervolume", "rank"]

STEPS = 8
"""A front that does not fit shrinks in steps of an eighth of what is too much."""
EXACT_DIMENSIONS, CROWD, RAYS = 3, 64, 256
"""Contributions take a second for 1,000 points in more objectives than that; a crowd is thinned out first,
by its reach along so many directions."""
SAMPLE = 256
"""Points of a front that are looked at: a plan must not wait for the thousands that four objectives leave."""


@dataclasses.dataclass(frozen=True)
class RankedRows:
    """The best rows by non-domination rank, up to the first level that does not fit as a whole.

    Attributes:
        kept: Rows of the levels that fit, best level first.
        split_front: Rows of the level that does not fit, of a large one a sample (``sample_rows``), or none.
        room: How many rows of ``split_front`` still fit.
    """

    kept: tuple[int, ...]
    split_front: tuple[int, ...]
    room: int


def fill_by_rank(points: Array, size: int) -> RankedRows:
    """Take the best ``size`` rows of minimised points, shape (n, m), level by level."""
    rank = ranks(points)
    kept: list[int] = []
    for level in range(int(rank.max(initial=-1)) + 1):
        if len(kept) == size:
            break
        rows = [int(row) for row in np.flatnonzero(rank == level)]
        if len(kept) + len(rows) > size:
            return RankedRows(tuple(kept), _sampled(points, np.array(rows)), size - len(kept))
        kept.extend(rows)
    return RankedRows(tuple(kept), (), size - len(kept))


def hypervolume_subset(units: Array, size: int) -> tuple[int, ...]:
    """Rows, ascending, of a subset that dominates much volume.

    Rows that contribute least are removed (SMS-EMOA, Beume et al. 2007), an eighth of what is too much at a
    time, since contributions change as points go, and they take long.

    Args:
        units: Points in unit coordinates, shape (n, m).
        size: How many rows to keep, or n if that is less.
    """
    rows = np.arange(len(units))
    if units.shape[1] > EXACT_DIMENSIONS and len(rows) > max(CROWD, size):
        rows = _farthest_reaching(units, max(CROWD, size))
    while len(rows) > size:
        excess = len(rows) - size
        least = np.argsort(contributions(units[rows]), kind="stable")[: max(1, excess // STEPS)]
        rows = np.delete(rows, least)
    return tuple(int(row) for row in rows)


def sample_rows(points: Array) -> npt.NDArray[np.int64]:
    """All rows, or of a large table the best in each objective and others at even distances; ascending.

    Args:
        points: Points to be minimised, shape (n, m).
    """
    if len(points) <= SAMPLE:
        return np.arange(len(points))
    even = np.linspace(0, len(points) - 1, SAMPLE - points.shape[1]).astype(np.int64)
    return np.unique(np.concatenate([even, np.argmin(points, axis=0)]))


def _sampled(points: Array, rows: npt.NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(int(row) for row in rows[sample_rows(points[rows])])


def sample_split_front(ranked: RankedRows, rng: np.random.Generator) -> tuple[int, ...]:
    """Draw as many rows of the level that does not fit as there is room for, ascending."""
    count = min(ranked.room, len(ranked.split_front))
    rows = rng.choice(len(ranked.split_front), size=count, replace=False)
    return tuple(sorted(ranked.split_front[int(row)] for row in rows))


def sample_excluding(excluded: list[int], rows: int, count: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Draw up to ``count`` numbers below ``rows`` that are not excluded; the time is independent of ``rows``.

    Args:
        excluded: Numbers below ``rows``, each once.
        rows: Upper end of the range drawn from.
        count: How many numbers to draw; all that are free if those are fewer.
        rng: Source of all randomness.
    """
    free, ascending = rows - len(excluded), sorted(excluded)
    sample = []
    for draw in rng.choice(free, size=min(max(count, 0), free), replace=False, shuffle=False):
        # The draw counts free numbers only: each excluded one at or below it moves it up by one.
        row = int(draw)
        for number in ascending:
            row += number <= row
        sample.append(row)
    return tuple(sample)


def is_feasible(constraints: Mapping[str, float]) -> bool:
    """Whether no constraint is violated: each excess is at most 0."""
    return all(excess <= 0 for excess in constraints.values())


def total_violations(excesses: Mapping[str, Array], outside: Array) -> Array:
    """Sum of comparable violations of each row, shape (n,), by which infeasible rows are ordered.

    Constraints come in units of their own, so each counts in multiples of its median violation.

    Args:
        excesses: Excess of each row by constraint, shape (n,); at most 0 where it is met. An infinite
            excess counts as the largest finite one.
        outside: Distance of each row outside the bounds, in unit coordinates, shape (n,).
    """
    total = np.array(outside, dtype=float)
    for excess in excesses.values():
        finite = excess[np.isfinite(excess)]
        violated = np.clip(excess, 0, np.max(finite, initial=0.0) or 1.0)
        if violated.any():
            total += violated / np.median(violated[violated > 0])
    return total


def _farthest_reaching(units: Array, size: int) -> npt.NDArray[np.int64]:
    """Rows, ascending, that reach farthest from the reference point along most of ``RAYS`` directions.

    The volume of a set is the mean, over directions, of a power of its reach (Deng and Zhang 2019).
    """
    reach = np.clip(1 - units, 0, None)
    reach = reach / np.maximum(reach.max(axis=0), np.finfo(float).tiny)
    rays = np.abs(np.random.default_rng(0).standard_normal((RAYS, units.shape[1])))
    winners = np.argmax((reach[:, None, :] / rays).min(axis=2), axis=0)
    wins = np.bincount(winners, minlength=len(units))
    return np.sort(np.argsort(-wins, kind="stable")[:size])
