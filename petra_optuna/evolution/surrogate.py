"""What a candidate is likely to add to the front: a forest learns the objectives from past trials."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from petra_optuna.evolution.front import Array, unit_hypervolume

TREES = 24
FEATURE_SHARE = 0.5
"""Share of the features among which a tree looks for each split."""
WORST = 1.3
"""Unit coordinates count up to this: how far a point lies beyond the reference point teaches nothing."""


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """Extremely randomised trees (Geurts et al. 2006) for all objectives and for feasibility together.

    Attributes:
        trees: Fitted regressors.
    """

    trees: tuple[Any, ...]

    @classmethod
    def fit(cls, features: Array, units: Array, feasible: Array) -> Surrogate:
        """Learn from trials; the same ones give the same trees.

        Args:
            features: Shape (n, d).
            units: Objectives in unit coordinates, shape (n, m); any beyond 1 where there are none.
            feasible: Shape (n,), 1 where a trial has values and meets its constraints, else 0.
        """
        from sklearn.ensemble import ExtraTreesRegressor  # takes a second, and not every sampler needs it

        forest = ExtraTreesRegressor(TREES, max_features=FEATURE_SHARE, random_state=0)
        forest.fit(features, np.column_stack([np.minimum(units, WORST), feasible]))
        return cls(tuple(forest.estimators_))

    def gains(self, features: Array, front: Array) -> Array:
        """Volume that candidates are likely to add to a front, shape (c,).

        Args:
            features: Of the candidates, shape (c, d).
            front: Points in unit coordinates, shape (f, m).
        """
        rows = np.asarray(features, dtype=np.float32)
        predicted = np.mean([tree.predict(rows, check_input=False) for tree in self.trees], axis=0)
        return np.asarray(volume_gains(predicted[:, :-1], front) * predicted[:, -1])


def volume_gains(units: Array, front: Array) -> Array:
    """Volume, shape (c,), that each of the points would add to a front by itself.

    Args:
        units: Points in unit coordinates, shape (c, m).
        front: Shape (f, m).
    """
    if units.shape[1] == 1:
        best = min(float(front.min(initial=1.0)), 1.0)
        return np.asarray(np.maximum(best - units[:, 0], 0.0))
    covered = np.any(np.all(front[None, :, :] <= units[:, None, :], axis=2), axis=1)
    before = unit_hypervolume(front) if len(front) else 0.0
    gains = np.zeros(len(units))
    for row in np.flatnonzero(~covered & np.all(units < 1, axis=1)):
        gains[row] = unit_hypervolume(np.vstack([front, units[row]])) - before
    return gains
