"""Evolutionary sampler of pipelines: one trial at a time, with all of its state in the storage."""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from petra_optuna.errors import UserError
from petra_optuna.evolution import Mutation, RatesMode, Survival, draw_value
from petra_optuna.pipeline import SearchSpace, distributions, present_params
from petra_optuna.samplers import _storage
from petra_optuna.samplers.cache import HistoryCache
from petra_optuna.samplers.history import History
from petra_optuna.samplers.options import PAPER, GeneChoice, Options, ParentChoice, Strength
from petra_optuna.samplers.params import plan_params
from petra_optuna.samplers.planner import plan_pipeline
from petra_optuna.samplers.priors import StudyPriors, read_priors
from petra_optuna.samplers.records import FIXED, PLAN, Plan, PlanRequest, directions_of
from petra_optuna.samplers.state import SamplerState, state_of, trace_of


class PetraSampler(BaseSampler):
    """Evolution of pipelines by mutation only (PETRA, arXiv 2510.09566), one trial at a time.

    A trial is a mutated copy of a parent. Parents are the best trials by non-domination rank and hypervolume,
    and some drawn at random. Trials that break a constraint or lie outside the study's bounds (at chance
    quality, for example) come last. The mutation is drawn by its recent success. Of the first
    ``population_size`` trials, those that nobody enqueued are random pipelines, of every length in turn.

    The whole pipeline is planned when the first parameter is asked for and stored in the trial. A plan
    is a pure function of the seed, the trial's plan index, the finished trials and the pending ones;
    the object holds nothing but what it has read of them, so any number of processes may share a study.
    From the study itself it reads what was stored when it was made, if anything: bounds, the operator
    history of the study that it was started from, and priors of the fields of new nodes (``BOUNDS``,
    ``CREDIT``, ``PRIORS``).

    Args:
        space: Search space that the objective passes to ``pipeline.suggest``. None for an objective with
            parameters of its own: then parameters of past trials are changed within their conditional
            branch, and ``mutations``, ``second_mutation`` and ``adapt_depth`` have no effect.
        seed: Seed of all randomness, at least 0. When None, each object draws its own.
        population_size: Number of parents kept, number of trials before the first mutation, and number of
            trials without progress before pipelines may get longer.
        random_share: Share of the parents drawn at random, for diversity.
        mutations: Operators that change a pipeline, of distinct names.
        rates: Rule by which the operators' success decides; see ``OperatorRates``.
        floor: Share of the rates that is spread evenly.
        window: Number of the newest mutations that count for the rates; inherited ones where the study has
            fewer of its own.
        survival: Rule for a front that does not fit: those become parents that dominate much
            ``hypervolume``, or any of them (``rank``).
        parents: Choice of a parent: ``uniform``, or the better one of two (``tournament``).
        genes: Source of new nodes and changed fields: drawn uniformly (``random``), or from the densities of
            good and bad past trials (``tpe``).
        use_priors: Whether the fields of new nodes are mostly drawn near the priors in the study's attribute
            ``PRIORS``, if it has one; without effect where genes come from TPE.
        strength: Size of small changes: ``fixed``, or drawn by its recent success (``adaptive``).
        second_mutation: Share of the children that are mutated twice.
        immigrants: Share of the trials after the start that are random.
        adapt_depth: Whether pipelines start short and may get longer after a stretch without progress.
        avoid_duplicates: Whether a child that does the same as a known trial is planned again.
        candidates: Number of children made for a trial. A forest fitted to at most 500 past trials, read
            with optimism, takes the one that is likely to add most volume to the front; 1 for plain
            evolution.

    Raises:
        UserError: When an argument is outside its range.

    Example:
        >>> sampler = PetraSampler(default_space(), seed=0, population_size=8)
        >>> study = optimize(task, trials=1, storage="sqlite:///storage/sampled.db", sampler=sampler)
        >>> len(study.trials) >= 1
        True
    """

    def __init__(
        self,
        space: SearchSpace | None = None,
        *,
        seed: int | None = None,
        population_size: int = Options.population_size,
        random_share: float = Options.random_share,
        mutations: Sequence[Mutation] = Options.mutations,
        rates: RatesMode = Options.rates,
        floor: float = Options.floor,
        window: int = Options.window,
        survival: Survival = Options.survival,
        parents: ParentChoice = Options.parents,
        genes: GeneChoice = Options.genes,
        use_priors: bool = Options.use_priors,
        strength: Strength = Options.strength,
        second_mutation: float = Options.second_mutation,
        immigrants: float = Options.immigrants,
        adapt_depth: bool = Options.adapt_depth,
        avoid_duplicates: bool = Options.avoid_duplicates,
        candidates: int = Options.candidates,
    ) -> None:
        if seed is not None and seed < 0:
            raise UserError(f"`seed` must be at least 0, got {seed}")
        self._space = space
        self._seed = secrets.randbits(32) if seed is None else seed
        self._options = Options(
            population_size=population_size,
            random_share=random_share,
            mutations=mutations,
            rates=rates,
            floor=floor,
            window=window,
            survival=survival,
            parents=parents,
            genes=genes,
            use_priors=use_priors,
            strength=strength,
            second_mutation=second_mutation,
            immigrants=immigrants,
            adapt_depth=adapt_depth,
            avoid_duplicates=avoid_duplicates,
            candidates=candidates,
        )
        self._cache = HistoryCache()

    @classmethod
    def from_options(
        cls, space: SearchSpace | None, options: Options, *, seed: int | None = None
    ) -> PetraSampler:
        """A sampler with options that the caller has built.

        Args:
            space: Search space that the objective passes to ``pipeline.suggest``, or None.
            options: All other arguments of the class.
            seed: Seed of all randomness, at least 0; None for one of the sampler's own.
        """
        sampler = cls(space, seed=seed)
        sampler._options = options
        return sampler

    @classmethod
    def paper(cls, space: SearchSpace | None = None, *, seed: int | None = None) -> PetraSampler:
        """The search as the paper describes it: a sampler with the options ``PAPER``."""
        return cls.from_options(space, PAPER, seed=seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Plan the trial; the space is that of the planned parameters."""
        plan = self._plan(study, trial)
        if self._space is not None:
            return distributions(plan.params, self._space)
        with self._cache.lock:
            space = self._history(study).conditional_space
            return {name: space.distribution(name) for name in plan.params}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The planned values of the parameters asked for."""
        params = self._plan(study, trial).params
        return {
            name: params[name]
            if name in params
            else self.sample_independent(study, trial, name, distribution)
            for name, distribution in search_space.items()
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
        rng = np.random.default_rng([self._seed, self._plan(study, trial).index, key])
        return draw_value(param_distribution, rng)

    def state(self, study: optuna.Study) -> SamplerState:
        """State of the sampler now, by which it would plan."""
        with self._cache.lock:
            return state_of(self._options, self._seed, self._space, self._history(study))

    def trace(self, study: optuna.Study) -> list[SamplerState]:
        """The state after each finished trial that counts, by plan index; the last one is that of now."""
        trials = study.get_trials(deepcopy=False)
        priors = read_priors(study)
        return trace_of(
            self._options, self._seed, self._space, trials, lambda: self._new_history(study, priors)
        )

    def _plan(self, study: optuna.Study, trial: FrozenTrial) -> Plan:
        attributes = _storage.system_attributes(study, trial)
        if PLAN in attributes:
            plan = Plan(**attributes[PLAN])
            if self._space is None:
                return plan
            # A killed trial of an earlier release is run again: its fields may have had other names.
            return dataclasses.replace(plan, params=present_params(plan.params, self._space))
        with self._cache.lock:
            plan = self._make_plan(study, trial, attributes.get(FIXED, {}))
            _storage.set_system_attribute(study, trial, PLAN, dataclasses.asdict(plan))
        return plan

    def _make_plan(self, study: optuna.Study, trial: FrozenTrial, enqueued: Mapping[str, Any]) -> Plan:
        history = self._history(study)
        held = _storage.fixed_by_wrappers(study.sampler)
        request = PlanRequest(self._seed, trial.number, enqueued=enqueued, held=held)
        if self._space is None:
            return plan_params(self._options, history, request)
        return plan_pipeline(self._space, self._options, history, request)

    def _history(self, study: optuna.Study) -> History:
        return self._cache.read(study, self._new_history)

    def _new_history(self, study: optuna.Study, priors: StudyPriors) -> History:
        size = self._options.population_size
        return History(directions_of(study), priors, space=self._space, size=size)
