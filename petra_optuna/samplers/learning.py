"""What good and bad pipelines looked like, for genes that learn from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from petra_optuna.evolution import GeneSource, TpeGenes, vectors_of
from petra_optuna.evolution.tpe import Vectors
from petra_optuna.pipeline import SearchSpace
from petra_optuna.samplers.identity import pipeline_of
from petra_optuna.samplers.population import Population

NEWEST = 500
"""Finished trials that are learnt from: more would cost time and be about pipelines long left behind."""
GOOD_SHARE, MOST_GOOD = 0.2, 40
"""Which share of them is good, and how many at most."""


class Learner:
    """Splits trials into good and bad pipelines; holds nothing but what it has read.

    Args:
        space: Of the pipelines.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._vectors: dict[int, Vectors | None] = {}

    def genes(self, trials: Sequence[FrozenTrial], population: Population) -> GeneSource:
        """GeneSource learnt from trials: the best of them against all others, failed ones too.

        Args:
            trials: The ``NEWEST`` finished trials, by plan index.
            population: Ranks them.
        """
        complete = [trial.number for trial in trials if trial.state == TrialState.COMPLETE]
        count = min(math.ceil(GOOD_SHARE * len(trials)), MOST_GOOD)
        good = set(population.best_among(complete, count))
        self._vectors = {trial.number: self._read(trial) for trial in trials}
        found = [(number, vectors) for number, vectors in self._vectors.items() if vectors is not None]
        return TpeGenes(
            good=[vectors for number, vectors in found if number in good],
            bad=[vectors for number, vectors in found if number not in good],
        )

    def _read(self, trial: FrozenTrial) -> Vectors | None:
        if trial.number in self._vectors:
            return self._vectors[trial.number]
        pipeline = pipeline_of(trial, self._space)
        return None if pipeline is None else vectors_of(pipeline)
