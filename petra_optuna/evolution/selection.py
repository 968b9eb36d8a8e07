"""Who may become a parent: front by front, then by hypervolume contribution, plus a few at random."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from petra_optuna.evolution.front import Array, contributions, ranks

STEPS = 8
"""A crowded front shrinks in steps of an eighth of what is too much: contributions change as points go,
but one at a time would cost seconds where hundreds of points are left out."""


def survivors(
    points: Array,
    units: Array,
    violations: Array,
    *,
    size: int,
    random_count: int,
    rng: np.random.Generator,
) -> tuple[int, ...]:
    """Rows that may become parents: the elite, then ``random_count`` of the others drawn for diversity.

    Elite: feasible rows by non-domination rank; of the front that does not fit as a whole those are
    kept that contribute most hypervolume (SMS-EMOA, Beume et al. 2007); infeasible rows follow by the
    sum of their violations (Deb's rule, Deb 2000).

    Args:
        points: Minimised values, shape (n, m).
        units: The same in unit coordinates (``Bounds.unit``).
        violations: Sum of constraint violations, shape (n,); 0 is feasible.
        size: How many rows to return, or n if that is less.
        random_count: How many of them are drawn at random from what the elite leaves.
        rng: Source of all randomness.
    """
    elite = _elite(points, units, violations, max(size - random_count, 1))
    rest = np.setdiff1d(np.arange(len(points)), elite)
    drawn = rng.choice(rest, size=min(size - len(elite), len(rest)), replace=False)
    return (*elite, *(int(row) for row in drawn))


def _elite(points: Array, units: Array, violations: Array, size: int) -> tuple[int, ...]:
    feasible = np.flatnonzero(violations <= 0)
    rank = ranks(points[feasible])
    kept: list[int] = []
    for level in range(int(rank.max(initial=-1)) + 1):
        rows = feasible[rank == level]
        room = size - len(kept)
        if room <= 0:
            break
        kept.extend(int(row) for row in _most_volume(rows, units, room))
    infeasible = np.flatnonzero(violations > 0)
    ordered = infeasible[np.argsort(violations[infeasible], kind="stable")]
    return tuple(kept + [int(row) for row in ordered[: size - len(kept)]])


def _most_volume(rows: npt.NDArray[np.int64], units: Array, room: int) -> npt.NDArray[np.int64]:
    while len(rows) > room:
        excess = len(rows) - room
        least = np.argsort(contributions(units[rows]), kind="stable")[: max(1, excess // STEPS)]
        rows = np.delete(rows, least)
    return rows
