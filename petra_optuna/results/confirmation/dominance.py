"""Dominance between values that are known only with an interval.

Two members compared in one objective are a tie where the difference may be noise:

- quality: the paired bootstrap interval of their difference contains 0;
- latency and throughput: their intervals overlap, or they differ by less than 3 % (5 % at batch 1);
- what is counted (size, parameters, ...): never, unless equal.

Member a dominates b within noise when a is better or tied in every objective and better in at least one.
Ties are not transitive, so such pairs may close a circle; within a circle nobody dominates anybody.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from petra_optuna.results.confirmation.record import Estimate

Outcomes = npt.NDArray[np.int64]


def outcome(first: Estimate, second: Estimate, direction: str) -> int:
    """1 where the first is clearly better, -1 where the second is, 0 for a tie or where one is no number."""
    if math.isnan(first.value) or math.isnan(second.value):
        return 0
    if first.low <= second.high and second.low <= first.high:
        return 0
    tie = max(first.tie, second.tie)
    if tie and abs(math.log(first.value / second.value)) < math.log1p(tie):
        return 0
    return _better(first.value > second.value, direction)


def outcome_of_difference(difference: Estimate, direction: str) -> int:
    """Outcome of a paired difference, first less second: 1 where the first is clearly better, and so on."""
    if difference.low <= 0 <= difference.high:
        return 0
    return _better(difference.value > 0, direction)


def dominates_within_noise(outcomes: Outcomes) -> npt.NDArray[np.bool_]:
    """Who dominates whom, from outcomes of shape (n, n, m): row against column in each objective.

    Returns:
        Shape (n, n), true where the row's member dominates the column's.
    """
    better = np.all(outcomes >= 0, axis=2) & np.any(outcomes > 0, axis=2)
    return np.asarray(better & ~_transitive_closure(better).T)


def ranks_within_noise(outcomes: Outcomes) -> npt.NDArray[np.int64]:
    """Rank of each member, shape (n,): 0 where nobody dominates it, else one more than who does."""
    dominates = _transitive_closure(dominates_within_noise(outcomes))
    ranks = np.zeros(len(dominates), dtype=np.int64)
    for index in np.argsort(dominates.sum(axis=0), kind="stable"):  # who is dominated by fewer comes first
        above = dominates[:, index]
        ranks[index] = 1 + ranks[above].max() if above.any() else 0
    return ranks


def _better(larger: bool, direction: str) -> int:
    return 1 if larger == (direction == "maximize") else -1


def _transitive_closure(edges: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Transitive closure (Warshall)."""
    reached = edges.copy()
    for middle in range(len(reached)):
        reached |= reached[:, middle, None] & reached[None, middle, :]
    return reached
