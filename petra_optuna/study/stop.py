"""When a run ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import optuna
from optuna.trial import TrialState

from petra_optuna.errors import UserError
from petra_optuna.samplers import Generations, Stagnation, StopRule, Targets, finished_trials
from petra_optuna.study.record import StudyRecord


@dataclasses.dataclass(frozen=True)
class Stop(StopRule):
    """When a run ends: at whatever of the following comes first. An Optuna callback.

    Attributes:
        trials: Finished trials of the study in total, those under way included.
        timeout_s: Seconds after which this run starts no new trial.
        generations: Blocks of finished trials as large as the population.
        stagnation: Finished trials over which the hypervolume grew by less than 1 %.
        targets: Values, by objective, that one trial reaches together.

    Raises:
        UserError: On construction, when none is given or one is out of range.

    Example:
        >>> stop = Stop(trials=1000, timeout_s=3600)
        >>> stop.is_reached(study)
        False
    """

    trials: int | None = None
    timeout_s: float | None = None
    generations: int | None = None
    stagnation: int | None = None
    targets: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        """Check that the run can start and end."""
        if all(getattr(self, field.name) is None for field in dataclasses.fields(self)):
            raise UserError("a run needs an end: give `trials`, `timeout_s` or another stop rule")
        if self.trials is not None and self.trials < 1:
            raise UserError(f"`trials` must be at least 1, got {self.trials}")
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise UserError(f"`timeout_s` must be positive, got {self.timeout_s:g}")
        self._rules(population_size=1)  # check their numbers

    def is_reached(self, study: optuna.Study) -> bool:
        """Whether the trials that have finished or are under way suffice."""
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return self._is_reached(study, len(running))

    def is_settled(self, study: optuna.Study) -> bool:
        """Whether the finished trials suffice, whatever becomes of those under way."""
        return self._is_reached(study, 0)

    def check(self, objectives: Sequence[str]) -> None:
        """Refuse targets that the study cannot have.

        Args:
            objectives: Names of the study's objectives.

        Raises:
            UserError: Naming the target.
        """
        if self.targets is not None:
            Targets(self.targets).check(objectives)

    def _is_reached(self, study: optuna.Study, running: int) -> bool:
        if self.trials is not None and len(finished_trials(study)) + running >= self.trials:
            return True
        by_blocks = self.generations is not None
        size = StudyRecord(study).specification.population_size if by_blocks else 1
        return any(rule.is_reached(study) for rule in self._rules(size))

    def _rules(self, population_size: int) -> list[StopRule]:
        rules: list[StopRule] = []
        if self.generations is not None:
            rules.append(Generations(self.generations, population_size))
        if self.stagnation is not None:
            rules.append(Stagnation(self.stagnation))
        if self.targets is not None:
            rules.append(Targets(self.targets))
        return rules


def stop_of(study: optuna.Study, given: Stop | None) -> Stop:
    """The end that is given; the end of the study's last run where none is."""
    return given or Stop(**StudyRecord(study).stop)
