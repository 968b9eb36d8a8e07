"""What the package keeps up to date step by step, computed from the whole table at once."""

from __future__ import annotations

import numpy as np

from petra_optuna.aliases import Array
from petra_optuna.evolution import (
    Survival,
    fill_by_rank,
    hypervolume_subset,
    sample_excluding,
    sample_split_front,
)


def survivors(
    points: Array,
    units: Array,
    violations: Array,
    *,
    size: int,
    random_count: int,
    rng: np.random.Generator,
    survival: Survival = "hypervolume",
) -> tuple[int, ...]:
    """Rows that may become parents: the elite, then ``random_count`` of the others drawn for diversity.

    Elite: feasible rows by non-domination rank; of the front that does not fit as a whole a subset that
    dominates much hypervolume, or any of its rows; infeasible rows follow by the sum of their violations
    (Deb's rule, Deb 2000).

    Args:
        points: Minimised values, shape (n, m).
        units: Values in unit coordinates (``Bounds.unit``), shape (n, m).
        violations: Sum of constraint violations, shape (n,); 0 is feasible.
        size: Number of rows to return, or n if that is less.
        random_count: Number of these drawn at random from what the elite leaves.
        rng: Source of all randomness.
        survival: Rule for the front that does not fit: ``hypervolume``, or ``rank`` to draw from it.
    """
    room = max(size - random_count, 1)
    feasible, infeasible = np.flatnonzero(violations <= 0), np.flatnonzero(violations > 0)
    ranked = fill_by_rank(points[feasible], room)
    if survival == "rank":
        crowd = sample_split_front(ranked, rng)
    else:
        crowd = tuple(
            ranked.split_front[row]
            for row in hypervolume_subset(units[feasible][list(ranked.split_front)], ranked.room)
        )
    elite = [int(feasible[row]) for row in (*ranked.kept, *crowd)]
    ordered = infeasible[np.argsort(violations[infeasible], kind="stable")]
    elite += [int(row) for row in ordered[: room - len(elite)]]
    return (*elite, *sample_excluding(elite, len(points), size - len(elite), rng))
