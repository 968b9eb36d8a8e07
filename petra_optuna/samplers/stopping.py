"""Rules that end a search: Optuna callbacks for any study.

    study.optimize(objective, callbacks=[Stagnation(trials=50), Targets({"accuracy": 0.95})])

Each looks at the finished trials alone, without those that were killed and are run again; so a resumed
study ends where one that was never killed does.
"""

from __future__ import annotations

import abc
import dataclasses
import time
from collections.abc import Mapping, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.errors import UserError
from petra_optuna.evolution import Bounds, hypervolume, is_feasible
from petra_optuna.samplers.priors import BOUNDS
from petra_optuna.samplers.readings import MeasuredValues
from petra_optuna.samplers.records import directions_of
from petra_optuna.samplers.reruns import finished_trials


class StopRule(abc.ABC):
    """A callback that stops a study once its condition holds."""

    @abc.abstractmethod
    def is_reached(self, study: optuna.Study) -> bool:
        """Whether the study has gone on for long enough."""

    def __call__(self, study: optuna.Study, _trial: FrozenTrial) -> None:
        """Stop the study once the rule is reached."""
        if self.is_reached(study):
            study.stop()


@dataclasses.dataclass(frozen=True)
class TimeLimit(StopRule):
    """Stops after a number of seconds.

    Attributes:
        seconds: Seconds from the making of this rule.
        began: Moment of its making, on the monotonic clock.

    Raises:
        UserError: On construction, when ``seconds`` is not positive.
    """

    seconds: float
    began: float = dataclasses.field(default_factory=time.monotonic, repr=False)

    def __post_init__(self) -> None:
        """Check the range."""
        if not self.seconds > 0:
            raise UserError(f"`seconds` must be positive, got {self.seconds:g}")

    def is_reached(self, study: optuna.Study) -> bool:
        """Whether the time has passed."""
        return time.monotonic() - self.began >= self.seconds


@dataclasses.dataclass(frozen=True)
class Generations(StopRule):
    """Stops after a number of generations: blocks of finished trials, each as large as the population.

    Attributes:
        generations: Number of generations.
        population_size: Number of trials in each.

    Raises:
        UserError: On construction, when a number is below 1.
    """

    generations: int
    population_size: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.generations < 1:
            raise UserError(f"`generations` must be at least 1, got {self.generations}")
        if self.population_size < 1:
            raise UserError(f"`population_size` must be at least 1, got {self.population_size}")

    def is_reached(self, study: optuna.Study) -> bool:
        """Whether so many trials have finished."""
        return len(finished_trials(study)) >= self.generations * self.population_size


@dataclasses.dataclass(frozen=True)
class Targets(StopRule):
    """Stops once one feasible trial is at least as good as all target values.

    Attributes:
        values: Target by name of the objective (``study.metric_names``); those not named may be anything.

    Raises:
        UserError: On construction, when there are none; later, when the study has no such objective.
    """

    values: Mapping[str, float]

    def __post_init__(self) -> None:
        """Check that there is a target."""
        if not self.values:
            raise UserError("`values` must name at least one objective and the value to reach, got none")

    def check(self, objectives: Sequence[str]) -> None:
        """Refuse a target of something else than the named objectives.

        Raises:
            UserError: Naming it, and the objectives.
        """
        if unknown := sorted(self.values.keys() - set(objectives)):
            declared = ", ".join(objectives) or "none: set study.metric_names"
            raise UserError(f"the study has no objective {unknown[0]!r}; it has {declared}")

    def is_reached(self, study: optuna.Study) -> bool:
        """Whether a complete trial reaches them."""
        names = study.metric_names or []
        self.check(names)
        measured = MeasuredValues.of_study(study)
        targets = []
        for index, (name, direction) in enumerate(zip(names, directions_of(study), strict=True)):
            if name in self.values:
                targets.append((index, 1.0 if direction == "maximize" else -1.0, self.values[name]))
        return any(
            all(sign * measured.values(trial)[index] >= sign * value for index, sign, value in targets)
            for trial in _feasible(finished_trials(study))
        )


@dataclasses.dataclass(frozen=True)
class Stagnation(StopRule):
    """Stops when a number of finished trials together raised the hypervolume by less than a share.

    Attributes:
        trials: Number of newest finished trials, failed and pruned ones included.
        share: Growth to expect, as a share of the hypervolume before them.

    Raises:
        UserError: On construction, when ``trials`` is below 1 or ``share`` negative.
    """

    trials: int
    share: float = 0.01

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.trials < 1:
            raise UserError(f"stagnation needs at least 1 trial, got {self.trials}")
        if self.share < 0:
            raise UserError(f"`share` must not be negative, got {self.share:g}")

    def is_reached(self, study: optuna.Study) -> bool:
        """Whether the hypervolume stagnates; never before there is one to grow from."""
        finished = finished_trials(study)
        if len(finished) <= self.trials:
            return False
        directions = directions_of(study)
        measured = MeasuredValues.of_study(study)
        now = [measured.values(trial) for trial in _feasible(finished)]
        before = [measured.values(trial) for trial in _feasible(finished[: -self.trials])]
        stored = study.user_attrs.get(BOUNDS)
        bounds = Bounds.from_values(now, directions) if stored is None else Bounds.from_dict(stored)
        old = hypervolume(before, directions, bounds)
        return old > 0 and hypervolume(now, directions, bounds) < (1 + self.share) * old


def _feasible(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [
        trial for trial in trials if trial.state == TrialState.COMPLETE and is_feasible(trial.constraints)
    ]
