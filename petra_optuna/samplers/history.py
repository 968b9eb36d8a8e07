"""The trials so far in an order that no clock decides: all that a plan may depend on.

Reading 10,000 trials takes a second, and one of them is new since the last plan. So a ``History`` can be
brought up to date. What it holds is then the same as if all trials were read at once, which is tested.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.aliases import Array, Direction
from petra_optuna.evolution import RANDOM, Bounds, FrontTrace, GeneSource, PriorGenes, minimised
from petra_optuna.pipeline import Pipeline, SearchSpace
from petra_optuna.samplers.conditional import ConditionalSpace
from petra_optuna.samplers.identity import trial_hash
from petra_optuna.samplers.population import Population
from petra_optuna.samplers.priors import StudyPriors
from petra_optuna.samplers.readings import MeasuredValues
from petra_optuna.samplers.records import Key, OperatorUse, Plan, is_external, plan_of
from petra_optuna.samplers.reruns import RerunLedger
from petra_optuna.samplers.surrogates import NEWEST, SurrogateFitter, TpeFitter

FIRST_VALUES = 10
"""Complete trials from which bounds are derived in a study that has none."""

START_DEPTH = 2
"""Longest body that is planned at first: short pipelines are cheap and show what each node is worth."""


class History:
    """Trials that count, superseded ones excluded, in order of their plan index, and what follows from them.

    Args:
        directions: Directions of the study's objectives.
        priors: What the study knew before its first trial, and readings taken after trials had ended; without
            bounds they are derived from its first complete trials.
        space: Search space of the pipelines; None for an objective with parameters of its own.
        size: Largest number of best trials that can be asked for.

    Attributes:
        finished: Keys of the complete, failed and pruned trials, ascending.
        population: Complete trials, ranked.
        conditional_space: Which parameters go together, where there is no search space.
    """

    def __init__(
        self,
        directions: Sequence[Direction],
        priors: StudyPriors,
        *,
        space: SearchSpace | None = None,
        size: int = 16,
    ) -> None:
        self._directions = tuple(directions)
        self._priors, self._bounds = priors, priors.bounds
        self._measured = MeasuredValues(priors.metric_names, directions)
        self._measured.add(priors.readings)
        stored = priors.field_priors
        self._field_priors = stored if space is None else tuple(prior.in_space(space) for prior in stored)
        self._space = space
        self.population = Population(size, len(self._directions))
        self.conditional_space = ConditionalSpace()
        self.finished: list[Key] = []
        self._tpe_fitter = None if space is None else TpeFitter(space)
        self._surrogate_fitter = SurrogateFitter(space)
        self._trials: dict[int, FrozenTrial] = {}
        self._open: dict[int, FrozenTrial] = {}
        self._reruns = RerunLedger()
        self._indices = self._reruns.indices
        self._mutations: list[Key] = []
        self._plans: dict[int, Plan] = {}
        self._hashes: set[str] = set()
        self._waiting_hashes: dict[int, str] = {}
        self._trace = FrontTrace(len(self._directions))
        self._entered = bytearray()

    def update(self, trials: Sequence[FrozenTrial]) -> bool:
        """Take in what is new.

        Args:
            trials: All trials in order of their numbers, those read before included.

        Returns:
            False when what was read before no longer holds and has to be read anew: a trial that counted
            is run again, values of a shape were measured again, or the first values, from which bounds are
            derived, have changed.
        """
        fresh = trials[len(self._indices) :]
        still_open = [trials[number] for number in self._open]
        if not all(self._enter(trial) for trial in fresh):
            return False
        arrived = []
        for trial in (*still_open, *fresh):
            self._open[trial.number] = trial
            if trial.state.is_finished():
                del self._open[trial.number]
                if not self._reruns.is_superseded(trial):
                    arrived.append(trial)
        return not arrived or self._arrive(arrived)

    def is_same_study(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether the trials can be those read before and newer ones: the last one is where it was."""
        if len(trials) < len(self._indices) or not self.finished:
            return not self.finished and len(trials) >= len(self._indices)
        last = self._trials[self.finished[-1][1]]
        again = trials[last.number]
        return again is last or (again.state, again.datetime_complete) == (last.state, last.datetime_complete)

    def trial(self, number: int) -> FrozenTrial:
        """A finished trial that counts."""
        return self._trials[number]

    def index_of(self, number: int) -> int:
        """Plan index of a trial."""
        return self._indices[number]

    def prior_genes(self) -> GeneSource:
        """Source of genes near the study's priors; uniform draws where it has none."""
        priors = self._field_priors
        return PriorGenes(priors=priors) if priors else RANDOM

    def tpe_genes(self) -> GeneSource:
        """Source of genes learnt from the newest finished trials; uniform draws without a search space."""
        newest = [self._trials[number] for _, number in self.finished[-NEWEST:]]
        return RANDOM if self._tpe_fitter is None else self._tpe_fitter.fit(newest, self.population)

    def gains(self, candidates: Sequence[Pipeline | Mapping[str, Any]]) -> Array:
        """Volume that pipelines, or sets of parameters, are likely to add to the front, shape (c,).

        All 0 while there is too little to learn from.
        """
        surrogate = self._surrogate_fitter.fit(
            self.finished, self._trials, self.population, self.conditional_space.distributions
        )
        if surrogate is None or self._bounds is None:
            return np.zeros(len(candidates))
        front = self._bounds.unit(minimised(self._trace.front, self._directions), self._directions)
        return surrogate.gains(self._surrogate_fitter.features(candidates), front)

    def has_entered(self, number: int) -> bool:
        """Whether a finished trial entered the front as it stood, with positive hypervolume gain."""
        return bool(self._entered[bisect.bisect_left(self.finished, (self._indices[number], number))])

    def credited_plans(self, count: int) -> list[tuple[Plan, float]]:
        """Plan and credit of the newest planned mutations, from old to new.

        The credit is 1 where the child entered the front as it stood with positive hypervolume gain, 0.5
        where it dominates its parent, and 0 otherwise and for failed and pruned trials. Values whose
        intervals overlap are a tie, which earns nothing.
        """
        newest = (number for _, number in self._mutations[-count:])
        return [(self._plans[number], self._credit(number, self._plans[number])) for number in newest]

    def operator_history(self, count: int) -> list[OperatorUse]:
        """The newest uses of operators, from old to new: inherited ones, then the study's own.

        Inherited uses fill what the study's own mutations leave of ``count``, and go as it makes its own.
        """
        uses = [
            OperatorUse(str(plan.operator), plan.second, plan.strength, credit)
            for plan, credit in self.credited_plans(count)
        ]
        inherited = self._priors.operator_history
        kept = min(count - len(uses), len(inherited))
        return [*inherited[len(inherited) - kept :], *uses]

    def depth(self, limit: int, patience: int) -> int:
        """Longest body to plan: one node more after every ``patience`` trials that did not enter the front.

        Args:
            limit: Longest body that the search space allows.
            patience: Number of successive trials without progress.
        """
        entries = np.flatnonzero(np.frombuffer(self._entered, dtype=np.uint8))
        gaps = np.diff(entries, prepend=-1, append=len(self._entered)) - 1
        return min(START_DEPTH + int(np.sum(gaps // patience)), limit)

    def duplicate_check(self, planned: int) -> Callable[[str], bool]:
        """A function that tells whether a canonical hash is that of a known trial other than ``planned``."""
        pending = {self._pending_hash(trial) for trial in self.pending(planned)}
        return lambda text: text in self._hashes or text in pending

    def pending(self, planned: int) -> list[FrozenTrial]:
        """Running and waiting trials that count, without the one that is being planned."""
        return [
            trial
            for trial in self._open.values()
            if trial.number != planned and not self._reruns.is_superseded(trial)
        ]

    def _enter(self, trial: FrozenTrial) -> bool:
        """Index a new trial; False when it re-runs one that counted."""
        return self._reruns.add(trial) not in self._trials

    def _arrive(self, trials: Sequence[FrozenTrial]) -> bool:
        """Take in finished trials; False when derived bounds or values of others have changed by them."""
        if self._measured.add_trials(trials) and self._trials:
            return False
        arrived = sorted((self._indices[trial.number], trial.number) for trial in trials)
        for trial in trials:
            self._trials[trial.number] = trial
            self._remember(trial)
        complete = [key for key in arrived if self._trials[key[1]].state == TrialState.COMPLETE]
        self.population.add_keys(complete)
        if not self._derive_bounds():
            return False
        self._rank(complete)
        start = bisect.bisect_left(self.finished, arrived[0])
        while len(self._trace) > start:
            self._trace.pop()
        del self._entered[start:]
        for key in arrived:
            bisect.insort(self.finished, key)
        for _, number in self.finished[start:]:
            point = self._measured.point(self._trials[number]) if number in self.population.inside else None
            self._entered.append(self._trace.push(point))
        return True

    def _remember(self, trial: FrozenTrial) -> None:
        plan = plan_of(trial)
        if plan is not None and plan.operator is not None and not is_external(trial):
            self._plans[trial.number] = plan
            bisect.insort(self._mutations, (self._indices[trial.number], trial.number))
        if self._space is None:
            self.conditional_space.observe((self._indices[trial.number], trial.number), trial)
        digest = trial_hash(trial, self._space)
        if digest is not None:
            self._hashes.add(digest)
        self._waiting_hashes.pop(trial.number, None)

    def _derive_bounds(self) -> bool:
        """Derive bounds where the study has none; False when they are no longer those derived before."""
        if self._priors.bounds is not None:
            return True
        first = [self._measured.values(self._trials[key[1]]) for key in self.population.keys[:FIRST_VALUES]]
        derived = Bounds.from_values(np.array(first).reshape(-1, len(self._directions)), self._directions)
        same = self._bounds is None or derived == self._bounds
        self._bounds = derived
        return same

    def _rank(self, complete: Sequence[Key]) -> None:
        assert self._bounds is not None
        table = [self._measured.values(self._trials[number]) for _, number in complete]
        values = np.array(table, dtype=float).reshape(-1, len(self._directions))
        points, units = minimised(values, self._directions), self._bounds.unit(values, self._directions)
        for key, point, unit in zip(complete, points, units, strict=True):
            # Bounds that are derived lie at the worst of the first trials: outside them is no fault.
            outside = 0.0 if self._priors.bounds is None else float(np.clip(unit - 1, 0, None).sum())
            self.population.rank(key, point, unit, outside, self._trials[key[1]].constraints)

    def _credit(self, number: int, plan: Plan) -> float:
        points = self.population.points
        if number not in points or not self.population.is_feasible(number):
            return 0.0
        if self.has_entered(number):
            return 1.0
        if plan.parent is None or plan.parent not in points:
            return 0.0
        child, parent = (self._measured.point(self._trials[which]) for which in (number, plan.parent))
        return 0.5 if child.dominates(parent) else 0.0

    def _pending_hash(self, trial: FrozenTrial) -> str | None:
        if trial.number not in self._waiting_hashes:
            digest = trial_hash(trial, self._space)
            if digest is None:
                return None
            self._waiting_hashes[trial.number] = digest
        return self._waiting_hashes[trial.number]
