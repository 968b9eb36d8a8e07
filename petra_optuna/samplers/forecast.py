"""Choosing among candidates by what past trials say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from petra_optuna.evolution import Array, Surrogate, params_features, pipeline_features
from petra_optuna.evolution.surrogate import WORST
from petra_optuna.pipeline import Pipeline, SearchSpace
from petra_optuna.samplers.identity import pipeline_of
from petra_optuna.samplers.population import Population
from petra_optuna.samplers.records import Key

NEWEST = 500
"""Finished trials that are learnt from."""
LEAST = 8
"""Complete trials below which there is nothing to learn."""
SLOWEST = 16
"""Trials between two fittings at most; at first every one is learnt from at once."""


class Forecaster:
    """Fits a surrogate to finished trials, and again when there are a few more of them.

    Which trials it is fitted to follows from their number alone, so that what it remembers changes nothing.

    Args:
        space: Of the pipelines; None for plain parameters.
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
            finished: Keys of all of them, ascending.
            trials: Finished trials by number.
            population: Knows the complete ones.
            distributions: Of plain parameters, by name; without meaning where there is a space.
        """
        if self._space is None and dict(distributions) != self._distributions:
            self._distributions, self._features = dict(distributions), {}
            self._fitted = (None, None)
        count = last_fitting(len(finished))
        learnt = finished[max(count - NEWEST, 0) : count]
        if self._fitted[0] != learnt:
            self._fitted = learnt, self._fit([trials[number] for _, number in learnt], population)
        return self._fitted[1]

    def features(self, candidates: Sequence[Pipeline | Mapping[str, object]]) -> Array:
        """Shape (c, d)."""
        return np.array([self._of(candidate) for candidate in candidates])

    def _fit(self, trials: Sequence[FrozenTrial], population: Population) -> Surrogate | None:
        self._features = {trial.number: self._read(trial) for trial in trials}
        rows = [(number, found) for number, found in self._features.items() if found is not None]
        complete = [population.units[number] for number, _ in rows if number in population.units]
        if len(complete) < LEAST:
            return None
        nothing = np.full(len(complete[0]), WORST)
        return Surrogate.fit(
            np.array([found for _, found in rows]),
            np.array([population.units.get(number, nothing) for number, _ in rows]),
            np.array([float(n in population.units and population.is_feasible(n)) for n, _ in rows]),
        )

    def _read(self, trial: FrozenTrial) -> Array | None:
        if trial.number in self._features:
            return self._features[trial.number]
        if self._space is None:
            return self._of(trial.params)
        pipeline = pipeline_of(trial, self._space)
        return None if pipeline is None else self._of(pipeline)

    def _of(self, candidate: Pipeline | Mapping[str, object]) -> Array:
        if isinstance(candidate, Pipeline):
            assert self._space is not None
            return pipeline_features(candidate, self._space)
        return params_features(candidate, self._distributions)


def last_fitting(count: int) -> int:
    """The number of trials, at most ``count``, after which the surrogate was fitted last.

    Fittings are a share of 1/32 of the trials apart, at least one trial and at most ``SLOWEST``.
    """
    step = min(max(1 << max(count // 32, 1).bit_length() - 1, 1), SLOWEST)
    return count - count % step
