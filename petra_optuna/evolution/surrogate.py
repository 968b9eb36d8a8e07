"""A forest that learns the objectives from past trials and rates candidates by what they add to the front."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from petra_optuna.aliases import Array
from petra_optuna.evolution.front import volume_gain
from petra_optuna.evolution.selection import sample_rows

TREES = 24
FEATURE_SHARE = 0.5
"""Share of the features among which a tree looks for each split."""
OPTIMISM = 0.5
"""How much better than the trees' mean a candidate counts, in standard deviations over the trees: without it
a search of 500 trials stays where it has been."""
WORST = 1.3
"""Unit coordinates count up to this: how far a point lies beyond the reference point teaches nothing."""


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """Extremely randomised trees (Geurts et al. 2006) for all objectives and for feasibility together.

    Attributes:
        trees: Fitted regression trees.
    """

    trees: tuple[Any, ...]

    @classmethod
    def fit(cls, features: Array, units: Array, feasible: Array) -> Surrogate:
        """Fit the forest to trials; the same ones give the same trees.

        Args:
            features: Features of the trials, shape (n, d).
            units: Objectives in unit coordinates, shape (n, m); infinite where a trial has none.
            feasible: 1 where a trial has values and meets its constraints, else 0; shape (n,).
        """
        from sklearn.ensemble import ExtraTreesRegressor  # takes a second, and not every sampler needs it

        forest = ExtraTreesRegressor(TREES, max_features=FEATURE_SHARE, random_state=0)
        forest.fit(features, np.column_stack([np.minimum(units, WORST), feasible]))
        return cls(tuple(forest.estimators_))

    def gains(self, features: Array, front: Array) -> Array:
        """Volume that feasible candidates are likely to add to a front, shape (c,); see ``volume_gains``.

        Args:
            features: Features of the candidates, shape (c, d).
            front: Points of the front in unit coordinates, shape (f, m).
        """
        rows = np.asarray(features, dtype=np.float32)
        predictions = np.array([tree.predict(rows, check_input=False) for tree in self.trees])
        units = (predictions.mean(axis=0) - OPTIMISM * predictions.std(axis=0))[:, :-1]
        gains, feasible = volume_gains(units, front), predictions.mean(axis=0)[:, -1]
        return np.asarray(np.where(gains > 0, gains * feasible, gains - (1 - feasible)))


def volume_gains(units: Array, front: Array) -> Array:
    """Volume, shape (c,), that each of the points would add to a front by itself (``sample_rows`` of it).

    A point that would add none gets a number of at most 0: minus the amount by which it had to be better in
    every objective to add some. So points compare even where none is predicted to enter, which is the rule
    with forests: they predict nothing better than what they have seen.

    Args:
        units: Points in unit coordinates, shape (c, m).
        front: Points of the front in unit coordinates, shape (f, m).
    """
    # A point gains volume below the reference point in every objective and below each front point in one.
    front = front[sample_rows(front)]
    outside = (units - 1).max(axis=1)
    behind = (units[:, None, :] - front[None, :, :]).min(axis=2).max(axis=1, initial=-np.inf)
    gains = -np.maximum(np.maximum(outside, behind), 0.0)
    for row in np.flatnonzero((outside < 0) & (behind < 0)):
        gains[row] = volume_gain(units[row], front)
    return np.asarray(gains)
