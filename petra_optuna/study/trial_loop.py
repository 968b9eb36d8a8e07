"""The loop of one worker: trial after trial until the run ends."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial

from petra_optuna.errors import TrialError, chain_of
from petra_optuna.samplers import TimeLimit, finished_elsewhere, repeated_rerun, stop_requested
from petra_optuna.study.liveness import await_signs_of_life, claim_dead_trials
from petra_optuna.study.stop import Stop
from petra_optuna.study.trial_record import TrialRecord

logger = logging.getLogger(__name__)
Callback = Callable[[optuna.Study, FrozenTrial], None]
ObjectiveFunction = Callable[[optuna.Trial], tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class TrialLoop:
    """Runs trials of a study until the run ends, and again those whose workers have died.

    Attributes:
        study: Study to run.
        stop: When the run ends.
        callbacks: Called after each trial; a call of ``study.stop`` ends the loop.
    """

    study: optuna.Study
    stop: Stop
    callbacks: Sequence[Callback]

    def is_over(self, await_helpers: Callable[[], None] = lambda: None) -> bool:
        """Whether no further trial is to start; the trials of dead workers are enqueued before.

        A trial under way counts as finished, so it is waited for until it is known that its worker lives.

        Args:
            await_helpers: Waits until the helpers of this worker have ended.
        """
        claim_dead_trials(self.study)
        if not self.stop.is_reached(self.study):
            return False
        if self.stop.is_settled(self.study):
            return True
        await_signs_of_life(self.study)
        await_helpers()
        claim_dead_trials(self.study)
        return self.stop.is_reached(self.study)

    def run(self, objective: ObjectiveFunction, await_helpers: Callable[[], None] = lambda: None) -> None:
        """Run trials until the run ends.

        Args:
            objective: Runs one trial.
            await_helpers: Waits until the helpers of this worker have ended.
        """
        limit = None if self.stop.timeout_s is None else TimeLimit(self.stop.timeout_s)
        while not (limit is not None and limit.is_reached(self.study)):
            if self.is_over(await_helpers):
                return
            self._run_one(_Attempt(objective))
            if stop_requested(self.study):
                return

    def _run_one(self, attempt: _Attempt) -> None:
        """Run one trial; where another process took it over, say so instead of ending the run."""
        try:
            self.study.optimize(attempt, n_trials=1, catch=(TrialError,), callbacks=self.callbacks)
        except (UpdateFinishedTrialError, ValueError, AssertionError) as error:
            if not finished_elsewhere(error):
                raise
            if attempt.interrupted:
                raise KeyboardInterrupt from error
            which = "a trial" if attempt.number is None else f"trial {attempt.number}"
            logger.warning("%s was taken over by another process; going on with the next", which)


@dataclasses.dataclass
class _Attempt:
    """An objective that remembers what Optuna does not tell of a trial that was taken over.

    Attributes:
        objective: Runs one trial.
        number: Number of the trial; None before it runs.
        interrupted: Whether Ctrl-C ended it.
    """

    objective: ObjectiveFunction
    number: int | None = None
    interrupted: bool = False

    def __call__(self, trial: optuna.Trial) -> tuple[float, ...]:
        """Run the trial, unless an earlier one runs the same killed trial again."""
        self.number = trial.number
        earlier = repeated_rerun(trial.study, trial)
        if earlier is not None:
            reason = f"trial {earlier} already runs the interrupted trial again"
            TrialRecord(trial).store_failure(reason)
            raise TrialError(reason)
        try:
            return self.objective(trial)
        except (KeyboardInterrupt, UpdateFinishedTrialError) as error:  # the second may hide the first
            self.interrupted = any(isinstance(cause, KeyboardInterrupt) for cause in chain_of(error))
            raise
