"""What the package keeps up to date step by step, computed from the whole table at once."""

from __future__ import annotations

import numpy as np

from petra_optuna.aliases import Array
from petra_optuna.evolution import Survival, drawn, fill_by_rank, hypervolume_subset, others


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
        units: The same in unit coordinates (``Bounds.unit``).
        violations: Sum of constraint violations, shape (n,); 0 is feasible.
        size: How many rows to return, or n if that is less.
        random_count: How many of them are drawn at random from what the elite leaves.
        rng: Source of all randomness.
        survival: ``hypervolume``, or ``rank`` to draw from the front that does not fit.
    """
    room = max(size - random_count, 1)
    feasible, infeasible = np.flatnonzero(violations <= 0), np.flatnonzero(violations > 0)
    ranked = fill_by_rank(points[feasible], room)
    if survival == "rank":
        crowd = drawn(ranked, rng)
    else:
        crowd = tuple(
            ranked.crowded[row]
            for row in hypervolume_subset(units[feasible][list(ranked.crowded)], ranked.room)
        )
    elite = [int(feasible[row]) for row in (*ranked.kept, *crowd)]
    ordered = infeasible[np.argsort(violations[infeasible], kind="stable")]
    elite += [int(row) for row in ordered[: room - len(elite)]]
    return (*elite, *others(elite, len(points), size - len(elite), rng))
