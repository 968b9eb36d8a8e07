"""The evolutionary sampler of pipelines, steady state and without state of its own."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from petra_optuna.errors import UserError
from petra_optuna.evolution import MUTATIONS, Bounds, Mutation, OperatorRates, RatesMode, draw_value
from petra_optuna.pipeline import SearchSpace, distributions
from petra_optuna.samplers import _storage
from petra_optuna.samplers.history import History
from petra_optuna.samplers.planner import Settings, plan_params, plan_pipeline
from petra_optuna.samplers.records import FIXED, PLAN, Plan, directions_of, plan_indices

BOUNDS = "petra:bounds"
"""User attribute of a study: ``Bounds.to_dict()`` from the original model's values."""


class PetraSampler(BaseSampler):
    """Evolution of pipelines by mutation only (PETRA, arXiv 2510.09566), one trial at a time.

    A trial is a mutated copy of a parent. Parents are the best by non-domination rank and hypervolume
    contribution, and some drawn at random; what lies beyond the study's frozen bounds, at chance quality for
    example, comes after all that does not. The mutation is drawn by its recent success. Of the first
    ``population_size`` trials those that nobody enqueued are random pipelines, of every length in turn.

    The whole pipeline is planned when the first parameter is asked for and stored in the trial. A plan
    is a pure function of the seed, the trial's plan index, the finished trials and the pending ones;
    the object holds no state, so any number of processes may share a study.

    Args:
        space: What the objective passes to ``pipeline.suggest``. None for an objective with parameters
            of its own: then parameters of past trials are changed within their conditional branch.
        seed: Of all randomness.
        population_size: Parents kept, random trials at the start, and trials without progress before
            pipelines may get longer.
        random_share: Share of the parents drawn at random, for diversity.
        mutations: The operators.
        rates: How their success decides; see ``OperatorRates``.

    Raises:
        UserError: When an argument is outside its range.
    """

    def __init__(
        self,
        space: SearchSpace | None,
        *,
        seed: int,
        population_size: int = 16,
        random_share: float = 0.25,
        mutations: Sequence[Mutation] = MUTATIONS,
        rates: RatesMode = "matching",
    ) -> None:
        if seed < 0 or population_size < 2 or not 0 <= random_share < 1 or not mutations:
            raise UserError(
                "the sampler needs seed >= 0, population_size >= 2, random_share in [0, 1) and a mutation, "
                f"got {seed}, {population_size}, {random_share} and {len(mutations)} mutations"
            )
        OperatorRates(tuple(mutation.name for mutation in mutations), mode=rates)
        self._space = space
        self._settings = Settings(seed, population_size, random_share, tuple(mutations), rates)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Plan the trial; the space is that of the planned parameters."""
        plan = self._plan(study, trial)
        if self._space is not None:
            return distributions(plan.params, self._space)
        parents = (past for past in _storage.cached_trials(study) if past.number == plan.parent)
        return {name: kind for past in parents for name, kind in past.distributions.items()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The planned values of the parameters asked for."""
        params = self._plan(study, trial).params
        return {
            name: params[name] if name in params else self.sample_independent(study, trial, name, kind)
            for name, kind in search_space.items()
        }

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A random value for a parameter that the plan leaves free; its name seeds it."""
        key = int.from_bytes(hashlib.sha256(param_name.encode()).digest()[:8], "little")
        rng = np.random.default_rng([self._settings.seed, self._index(study, trial), key])
        return draw_value(param_distribution, rng)

    def _plan(self, study: optuna.Study, trial: FrozenTrial) -> Plan:
        attributes = _storage.system_attributes(study, trial)
        if PLAN in attributes:
            return Plan(**attributes[PLAN])
        plan = self._make_plan(study, trial, attributes.get(FIXED, {}))
        _storage.set_system_attribute(study, trial, PLAN, dataclasses.asdict(plan))
        return plan

    def _make_plan(self, study: optuna.Study, trial: FrozenTrial, fixed: Mapping[str, Any]) -> Plan:
        stored = study.user_attrs.get(BOUNDS)
        history = History.read(
            # Not from the cache: that is as old as the last ``ask``, and a batch is asked for at once.
            study.get_trials(deepcopy=False),
            directions_of(study),
            None if stored is None else Bounds.from_dict(stored),
            planned=trial.number,
        )
        index = self._index(study, trial)
        if self._space is None:
            return plan_params(self._settings, history, index)
        return plan_pipeline(self._space, self._settings, history, index, fixed)

    @staticmethod
    def _index(study: optuna.Study, trial: FrozenTrial) -> int:
        others = [past for past in _storage.cached_trials(study) if past.number < trial.number]
        return plan_indices([*others, trial])[trial.number]
