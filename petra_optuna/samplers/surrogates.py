"""What is learnt from past trials: a forest that ranks candidates, and the densities of TPE."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.aliases import Array
from petra_optuna.evolution import (
    GeneSource,
    Surrogate,
    TpeGenes,
    Vectors,
    params_features,
    pipeline_features,
    vectors_of,
)
from petra_optuna.pipeline import Pipeline, SearchSpace
from petra_optuna.samplers.identity import pipeline_of
from petra_optuna.samplers.population import Population
from petra_optuna.samplers.records import Key

NEWEST = 500
"""Finished trials that are learnt from: more would cost time and be about pipelines long left behind."""
LEAST = 8
"""Complete trials below which a forest has too little to learn from."""
LONGEST_GAP = 16
"""Trials between two fittings of the forest at most; at first it is fitted after every trial."""
GOOD_SHARE, MOST_GOOD = 0.2, 40
"""Which share of the trials counts as good for TPE, and how many at most."""


class SurrogateFitter:
    """Fits a forest to finished trials, and again when there are a few more of them.

    Which trials it is fitted to follows from their number alone, so that what it remembers changes nothing.

    Args:
        space: Search space of the pipelines; None for plain parameters.
    """

    def __init__(self, space: SearchSpace | None) -> None:
        self._space = space
        self._features: dict[int, Array | None] = {}
        self._fitted: tuple[object, Surrogate | None] = (None, None)
        self._distributions: Mapping[str, BaseDistribution] = {}

    def fit(
        self,
        finished: Sequence[Key],
        trials: Mapping[int, FrozenTrial],
        population: Population,
        distributions: Mapping[str, BaseDistribution],
    ) -> Surrogate | None:
        """The surrogate of the newest finished trials; None where there are too few.

        Args:
            finished: Keys of all finished trials, ascending.
            trials: Finished trials by number.
            population: Population with the values of the complete trials.
            distributions: Distributions of plain parameters by name; without meaning where there is a space.
        """
        if self._space is None and dict(distributions) != self._distributions:
            self._distributions, self._features = dict(distributions), {}
            self._fitted = (None, None)
        count = last_fitting(len(finished))
        newest = finished[max(count - NEWEST, 0) : count]
        if self._fitted[0] != newest:
            self._fitted = newest, self._fit([trials[number] for _, number in newest], population)
        return self._fitted[1]

    def features(self, candidates: Sequence[Pipeline | Mapping[str, object]]) -> Array:
        """Features of candidates, shape (c, d)."""
        return np.array([self._features_of(candidate) for candidate in candidates])

    def _fit(self, trials: Sequence[FrozenTrial], population: Population) -> Surrogate | None:
        self._features = {trial.number: self._read(trial) for trial in trials}
        rows = [(number, features) for number, features in self._features.items() if features is not None]
        complete = [population.units[number] for number, _ in rows if number in population.units]
        if len(complete) < LEAST:
            return None
        no_values = np.full(len(complete[0]), np.inf)
        return Surrogate.fit(
            np.array([features for _, features in rows]),
            np.array([population.units.get(number, no_values) for number, _ in rows]),
            np.array([float(n in population.units and population.is_feasible(n)) for n, _ in rows]),
        )

    def _read(self, trial: FrozenTrial) -> Array | None:
        if trial.number in self._features:
            return self._features[trial.number]
        if self._space is None:
            return self._features_of(trial.params)
        pipeline = pipeline_of(trial, self._space)
        return None if pipeline is None else self._features_of(pipeline)

    def _features_of(self, candidate: Pipeline | Mapping[str, object]) -> Array:
        if isinstance(candidate, Pipeline):
            assert self._space is not None
            return pipeline_features(candidate, self._space)
        return params_features(candidate, self._distributions)


def last_fitting(count: int) -> int:
    """The number of finished trials, at most ``count``, after which the surrogate was fitted last.

    Refitted every 2^floor(log2(count/32)) trials, between 1 and ``LONGEST_GAP`` (16).
    """
    gap = min(1 << max(count // 32, 1).bit_length() - 1, LONGEST_GAP)
    return count - count % gap


class TpeFitter:
    """Splits trials into good and bad pipelines for TPE; holds nothing but what it has read of them.

    Args:
        space: Search space of the pipelines.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._vectors: dict[int, Vectors | None] = {}

    def fit(self, trials: Sequence[FrozenTrial], population: Population) -> GeneSource:
        """Source of genes learnt from trials: the best of them against all others, failed ones too.

        Args:
            trials: The ``NEWEST`` finished trials, by plan index.
            population: Population that ranks the complete ones.
        """
        complete = [trial.number for trial in trials if trial.state == TrialState.COMPLETE]
        count = min(math.ceil(GOOD_SHARE * len(trials)), MOST_GOOD)
        good = set(population.best_among(complete, count))
        self._vectors = {trial.number: self._read(trial) for trial in trials}
        read = [(number, vectors) for number, vectors in self._vectors.items() if vectors is not None]
        return TpeGenes(
            good=[vectors for number, vectors in read if number in good],
            bad=[vectors for number, vectors in read if number not in good],
        )

    def _read(self, trial: FrozenTrial) -> Vectors | None:
        if trial.number in self._vectors:
            return self._vectors[trial.number]
        pipeline = pipeline_of(trial, self._space)
        return None if pipeline is None else vectors_of(pipeline)
