"""When a run ends."""

from __future__ import annotations

import dataclasses

import optuna
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.errors import UserError
from petra_optuna.samplers import finished_trials
from petra_optuna.study import attributes


@dataclasses.dataclass(frozen=True)
class Stop:
    """After so many finished trials of the study in total, or so many seconds. An Optuna callback.

    Raises:
        UserError: On construction, when neither is given or one is not positive.
    """

    trials: int | None = None
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        """Check that the run can start and end."""
        if self.trials is None and self.timeout_s is None:
            raise UserError("a run needs an end: give --trials, --timeout or both")
        if self.trials is not None and self.trials < 1:
            raise UserError(f"--trials must be at least 1, got {self.trials}")
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise UserError(f"--timeout must be positive, got {self.timeout_s:g}")

    def is_reached(self, study: optuna.Study) -> bool:
        """Whether the trials that have finished or are under way suffice."""
        if self.trials is None:
            return False
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return len(finished_trials(study)) + len(running) >= self.trials

    def __call__(self, study: optuna.Study, _trial: FrozenTrial) -> None:
        """Stop the study once its trials suffice."""
        if self.is_reached(study):
            study.stop()


def stop_of(study: optuna.Study, trials: int | None, timeout_s: float | None) -> Stop:
    """The stop rule given, or that of the study's last run where none is given."""
    if trials is None and timeout_s is None:
        return Stop(**study.user_attrs.get(attributes.STOP, {}))
    return Stop(trials, timeout_s)
