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

from petra_optuna.evolution import MUTATIONS, Mutation, RatesMode, Survival, draw_value
from petra_optuna.pipeline import SearchSpace, distributions, present_params
from petra_optuna.samplers import _storage
from petra_optuna.samplers.cache import HistoryCache, StudyPriors, read_priors
from petra_optuna.samplers.history import History
from petra_optuna.samplers.options import WINDOW, GeneSource, Options, ParentChoice, Strength
from petra_optuna.samplers.params import plan_params
from petra_optuna.samplers.planner import plan_pipeline
from petra_optuna.samplers.records import FIXED, PLAN, Plan, directions_of
from petra_optuna.samplers.state import SamplerState, state_of, trace_of


class PetraSampler(BaseSampler):
    """Evolution of pipelines by mutation only (PETRA, arXiv 2510.09566), one trial at a time.

    A trial is a mutated copy of a parent. Parents are the best by non-domination rank and hypervolume, and
    some drawn at random; what lies beyond the study's frozen bounds, at chance quality for example, comes
    after all that does not, with what breaks a constraint. The mutation is drawn by its recent success. Of
    the first ``population_size`` trials those that nobody enqueued are random pipelines, of every length in
    turn.

    The whole pipeline is planned when the first parameter is asked for and stored in the trial. A plan
    is a pure function of the seed, the trial's plan index, the finished trials and the pending ones;
    the object holds nothing but what it has read of them, so any number of processes may share a study.
    Of the study itself it reads what was frozen when it was made: bounds, and the success history of the
    study that it was started from and where new nodes begin, if any (``BOUNDS``, ``CREDIT``, ``PRIORS``).

    Args:
        space: What the objective passes to ``pipeline.suggest``. None for an objective with parameters
            of its own: then parameters of past trials are changed within their conditional branch, and
            ``mutations``, ``second_mutation`` and ``adapt_depth`` have no effect.
        seed: Of all randomness.
        population_size: Parents kept, random trials at the start, and trials without progress before
            pipelines may get longer.
        random_share: Share of the parents drawn at random, for diversity.
        mutations: The operators.
        rates: How their success decides; see ``OperatorRates``.
        floor: Share of the rates that is spread evenly.
        window: How many of the newest mutations count for the rates; inherited ones where the study has
            fewer of its own.
        survival: Which of a front that does not fit become parents: those that dominate much
            ``hypervolume``, or any of them (``rank``).
        parents: ``uniform``, or the better one of two (``tournament``).
        genes: New nodes and changed fields are drawn uniformly (``random``), or from the densities of
            good and bad past trials (``tpe``).
        starts: Whether the strengths of new nodes are mostly drawn near those that the study's attribute
            ``PRIORS`` gives, if it has one; not where genes come from TPE.
        strength: Size of small changes: ``fixed``, or drawn by its recent success (``adaptive``).
        second_mutation: Share of the children that are mutated twice.
        immigrants: Share of the trials after the start that are random.
        adapt_depth: Whether pipelines start short and may get longer after a stretch without progress.
        avoid_duplicates: Whether a child that does the same as a known trial is planned again.
        candidates: Children among which the one is taken that is likely to add most volume to the front,
            by a forest fitted to at most 500 past trials and read with optimism; 1 for plain evolution.

    Raises:
        UserError: When an argument is outside its range.
    """

    def __init__(
        self,
        space: SearchSpace | None,
        *,
        seed: int,
        population_size: int = 8,
        random_share: float = 0.0,
        mutations: Sequence[Mutation] = MUTATIONS,
        rates: RatesMode = "matching",
        floor: float = 0.2,
        window: int = WINDOW,
        survival: Survival = "hypervolume",
        parents: ParentChoice = "tournament",
        genes: GeneSource = "random",
        starts: bool = True,
        strength: Strength = "fixed",
        second_mutation: float = 0.5,
        immigrants: float = 0.0,
        adapt_depth: bool = True,
        avoid_duplicates: bool = True,
        candidates: int = 16,
    ) -> None:
        self._space = space
        self._options = Options(
            seed=seed,
            population_size=population_size,
            random_share=random_share,
            mutations=tuple(mutations),
            rates=rates,
            floor=floor,
            window=window,
            survival=survival,
            parents=parents,
            genes=genes,
            starts=starts,
            strength=strength,
            second_mutation=second_mutation,
            immigrants=immigrants,
            adapt_depth=adapt_depth,
            avoid_duplicates=avoid_duplicates,
            candidates=candidates,
        )
        self._cache = HistoryCache()

    @classmethod
    def paper(cls, space: SearchSpace | None, *, seed: int) -> PetraSampler:
        """The search as the paper describes it, whatever the defaults are.

        Pareto-optimal pipelines plus randomly sampled individuals, mutation only, with probabilities by
        success, and depth adaptation. Everything new is drawn uniformly, and nothing keeps two trials from
        being the same. Numbers that the paper does not give are those that this class began with.
        """
        return cls(
            space,
            seed=seed,
            population_size=16,
            random_share=0.25,
            mutations=MUTATIONS,
            rates="matching",
            floor=0.2,
            window=50,
            survival="rank",
            parents="uniform",
            genes="random",
            starts=False,
            strength="fixed",
            second_mutation=0.0,
            immigrants=0.0,
            adapt_depth=True,
            avoid_duplicates=False,
            candidates=1,
        )

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Plan the trial; the space is that of the planned parameters."""
        plan = self._plan(study, trial)
        if self._space is not None:
            return distributions(plan.params, self._space)
        with self._cache.lock:
            branches = self._history(study).branches
            return {name: branches.distribution(name) for name in plan.params}

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
        rng = np.random.default_rng([self._options.seed, self._plan(study, trial).index, key])
        return draw_value(param_distribution, rng)

    def state(self, study: optuna.Study) -> SamplerState:
        """What the sampler knows now, and would plan by."""
        with self._cache.lock:
            return state_of(self._options, self._space, self._history(study))

    def trace(self, study: optuna.Study) -> list[SamplerState]:
        """The state after each finished trial that counts, by plan index; the last one is that of now."""
        trials = study.get_trials(deepcopy=False)
        frozen = read_priors(study)
        return trace_of(self._options, self._space, trials, lambda: self._new_history(study, frozen))

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
        if self._space is None:
            return plan_params(self._options, history, trial.number, {**held, **enqueued})
        return plan_pipeline(self._space, self._options, history, trial.number, enqueued, held)

    def _history(self, study: optuna.Study) -> History:
        return self._cache.read(study, self._new_history)

    def _new_history(self, study: optuna.Study, frozen: StudyPriors) -> History:
        size = self._options.population_size
        return History(
            directions_of(study), frozen.bounds, self._space, size, frozen.inherited, frozen.starts
        )
