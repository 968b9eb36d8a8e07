"""What a plan may depend on: the trials so far, in an order that no clock decides.

Reading 10,000 trials takes a second, and one of them is new since the last plan. So a ``History`` can be
brought up to date. What it holds is then the same as if all trials were read at once, which is tested.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.evolution import (
    RANDOM,
    Bounds,
    Direction,
    FrontTrace,
    GeneSource,
    PriorGenes,
    dominates,
    minimised,
)
from petra_optuna.evolution.front import Array
from petra_optuna.pipeline import FieldPrior, Pipeline, SearchSpace
from petra_optuna.samplers.branches import Branches
from petra_optuna.samplers.forecast import Forecaster
from petra_optuna.samplers.identity import trial_hash
from petra_optuna.samplers.learning import NEWEST, Learner
from petra_optuna.samplers.population import Population
from petra_optuna.samplers.records import ORPHAN, RETRY, Key, OperatorUse, Plan, is_external, plan_of

FIRST_VALUES = 10
"""Complete trials from which bounds are derived in a study that has none."""

START_DEPTH = 2
"""Longest body that is planned at first: short pipelines are cheap and show what each node is worth."""


class History:
    """The trials that count, superseded ones excluded, in order of their plan index.

    Args:
        directions: Of the study.
        bounds: StudyPriors in the study; derived from its first complete trials when None.
        space: Which pipelines there are; None for an objective with parameters of its own.
        size: How many of the best trials can be asked for.
        inherited: Another study's success history, from old to new, that this one's goes on from.
        starts: Where fields of new nodes begin.

    Attributes:
        finished: Keys of the complete, failed and pruned trials, ascending.
        population: The complete ones.
        branches: Which parameters go together, where there is no search space.
    """

    def __init__(
        self,
        directions: Sequence[Direction],
        bounds: Bounds | None,
        space: SearchSpace | None = None,
        size: int = 16,
        inherited: Sequence[OperatorUse] = (),
        starts: Sequence[FieldPrior] = (),
    ) -> None:
        self._directions = tuple(directions)
        self._frozen, self._bounds = bounds is not None, bounds
        self._space = space
        self._inherited = tuple(inherited)
        self._starts = tuple(starts) if space is None else tuple(prior.in_space(space) for prior in starts)
        self.population = Population(size, len(self._directions))
        self.branches = Branches()
        self.finished: list[Key] = []
        self._learner = None if space is None else Learner(space)
        self._forecaster = Forecaster(space)
        self._trials: dict[int, FrozenTrial] = {}
        self._open: dict[int, FrozenTrial] = {}
        self._indices: dict[int, int] = {}
        self._retries = 0
        self._rerun: set[int] = set()
        self._dropped: set[int] = set()
        self._mutated: list[Key] = []
        self._plans: dict[int, Plan] = {}
        self._hashes: set[str] = set()
        self._waiting_hashes: dict[int, str] = {}
        self._trace = FrontTrace(len(self._directions))
        self._entered = bytearray()

    @classmethod
    def read(
        cls,
        trials: Sequence[FrozenTrial],
        directions: Sequence[Direction],
        bounds: Bounds | None,
        space: SearchSpace | None = None,
        size: int = 16,
        inherited: Sequence[OperatorUse] = (),
    ) -> History:
        """Read a study's trials, by number; see the class."""
        history = cls(directions, bounds, space, size, inherited)
        history.update(trials)
        return history

    def update(self, trials: Sequence[FrozenTrial]) -> bool:
        """Take in what is new.

        Args:
            trials: All trials by number; those that were there before have the same places.

        Returns:
            False when what was read before does not hold any more, and has to be read anew: a trial
            that counted is run again, or the first values, from which bounds are derived, are others.
        """
        fresh = trials[len(self._indices) :]
        known = [trials[number] for number in self._open]
        if not all(self._enter(trial) for trial in fresh):
            return False
        arrived = []
        for trial in (*known, *fresh):
            self._open[trial.number] = trial
            if trial.state.is_finished():
                del self._open[trial.number]
                if not self._is_dropped(trial):
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

    def started_genes(self) -> GeneSource:
        """GeneSource that draw near the study's starts; random ones where it has none."""
        return PriorGenes(starts=self._starts) if self._starts else RANDOM

    def learnt_genes(self) -> GeneSource:
        """What the newest finished trials have in common; random values without a search space."""
        newest = [self._trials[number] for _, number in self.finished[-NEWEST:]]
        return RANDOM if self._learner is None else self._learner.genes(newest, self.population)

    def gains(self, candidates: Sequence[Pipeline | Mapping[str, Any]]) -> Array:
        """Volume that pipelines, or sets of parameters, are likely to add to the front, shape (c,).

        All 0 while there is too little to learn from.
        """
        surrogate = self._forecaster.fit(
            self.finished, self._trials, self.population, self.branches.distributions
        )
        if surrogate is None or self._bounds is None:
            return np.zeros(len(candidates))
        front = self._bounds.unit(minimised(self._trace.front, self._directions), self._directions)
        return surrogate.gains(self._forecaster.features(candidates), front)

    def has_entered(self, number: int) -> bool:
        """Whether a finished trial entered the front as it stood, with positive hypervolume gain."""
        return bool(self._entered[bisect.bisect_left(self.finished, (self._indices[number], number))])

    def mutated(self, count: int) -> list[tuple[Plan, float]]:
        """Plan and credit of the newest planned mutations, from old to new.

        1 where the child entered the front as it stood with positive hypervolume gain, 0.5 where it
        dominates its parent, 0 otherwise and for failed and pruned trials.
        """
        newest = (number for _, number in self._mutated[-count:])
        return [(self._plans[number], self._credit(number, self._plans[number])) for number in newest]

    def uses(self, count: int) -> list[OperatorUse]:
        """The newest entries of the success history, from old to new: the study's own, then inherited ones.

        Inherited ones fill what the study's own mutations leave, so they go as it makes its own.
        """
        own = [
            OperatorUse(str(plan.operator), plan.second, plan.strength, credit)
            for plan, credit in self.mutated(count)
        ]
        kept = min(count - len(own), len(self._inherited))
        return [*self._inherited[len(self._inherited) - kept :], *own]

    def depth(self, limit: int, patience: int) -> int:
        """Longest body to plan: one more after every ``patience`` trials of which none entered the front."""
        entries = np.flatnonzero(np.frombuffer(self._entered, dtype=np.uint8))
        gaps = np.diff(entries, prepend=-1, append=len(self._entered)) - 1
        return min(START_DEPTH + int(np.sum(gaps // patience)), limit)

    def taken(self, planned: int) -> Callable[[str], bool]:
        """Whether a canonical hash is that of a trial that was or is being run, other than ``planned``."""
        pending = {self._pending_hash(trial) for trial in self.pending(planned)}
        return lambda text: text in self._hashes or text in pending

    def pending(self, planned: int) -> list[FrozenTrial]:
        """Running and waiting trials that count, without the one that is being planned."""
        return [
            trial for trial in self._open.values() if trial.number != planned and not self._is_dropped(trial)
        ]

    def _enter(self, trial: FrozenTrial) -> bool:
        """Index a new trial; False when it re-runs one that counted."""
        retry = trial.system_attrs.get(RETRY)
        if retry is None:
            self._indices[trial.number] = trial.number - self._retries
            return True
        self._indices[trial.number] = int(retry["index"])
        self._retries += 1
        original = int(retry["of"])
        if original in self._rerun:
            self._dropped.add(trial.number)
        self._rerun.add(original)
        return original not in self._trials

    def _is_dropped(self, trial: FrozenTrial) -> bool:
        return trial.number in self._rerun or trial.number in self._dropped or ORPHAN in trial.system_attrs

    def _arrive(self, trials: Iterable[FrozenTrial]) -> bool:
        arrived = sorted((self._indices[trial.number], trial.number) for trial in trials)
        for trial in trials:
            self._trials[trial.number] = trial
            self._remember(trial)
        complete = [key for key in arrived if self._trials[key[1]].state == TrialState.COMPLETE]
        self.population.extend(complete)
        if not self._derive_bounds():
            return False
        self._place(complete)
        start = bisect.bisect_left(self.finished, arrived[0])
        while len(self._trace) > start:
            self._trace.pop()
        del self._entered[start:]
        for key in arrived:
            bisect.insort(self.finished, key)
        for _, number in self.finished[start:]:
            self._entered.append(self._trace.push(self.population.inside.get(number)))
        return True

    def _remember(self, trial: FrozenTrial) -> None:
        plan = plan_of(trial)
        if plan is not None and plan.operator is not None and not is_external(trial):
            self._plans[trial.number] = plan
            bisect.insort(self._mutated, (self._indices[trial.number], trial.number))
        if self._space is None:
            self.branches.observe((self._indices[trial.number], trial.number), trial)
        found = trial_hash(trial, self._space)
        if found is not None:
            self._hashes.add(found)
        self._waiting_hashes.pop(trial.number, None)

    def _derive_bounds(self) -> bool:
        if self._frozen:
            return True
        first = [self._trials[number].values for _, number in self.population.keys[:FIRST_VALUES]]
        derived = Bounds.from_values(np.array(first).reshape(-1, len(self._directions)), self._directions)
        same = self._bounds is None or derived == self._bounds
        self._bounds = derived
        return same

    def _place(self, complete: Sequence[Key]) -> None:
        assert self._bounds is not None
        table = [self._trials[number].values for _, number in complete]
        values = np.array(table, dtype=float).reshape(-1, len(self._directions))
        points, units = minimised(values, self._directions), self._bounds.unit(values, self._directions)
        for key, point, unit in zip(complete, points, units, strict=True):
            beyond = float(np.clip(unit - 1, 0, None).sum()) if self._frozen else 0.0
            self.population.place(key, point, unit, beyond, self._trials[key[1]].constraints)

    def _credit(self, number: int, plan: Plan) -> float:
        points = self.population.points
        if number not in points or not self.population.is_feasible(number):
            return 0.0
        if self.has_entered(number):
            return 1.0
        parent: Array | None = points.get(-1 if plan.parent is None else plan.parent)
        return 0.5 if parent is not None and dominates(points[number], parent) else 0.0

    def _pending_hash(self, trial: FrozenTrial) -> str | None:
        if trial.number not in self._waiting_hashes:
            found = trial_hash(trial, self._space)
            if found is None:
                return None
            self._waiting_hashes[trial.number] = found
        return self._waiting_hashes[trial.number]
