"""How a trial ends that has no values: why is stored, and what is not the pipeline's fault is run again."""

from __future__ import annotations

from types import TracebackType

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError

from petra_optuna.errors import StudyError, TrialError, UserError, one_line
from petra_optuna.evaluation import TrainingLedger
from petra_optuna.samplers import mark_for_rerun
from petra_optuna.study.trial_record import TrialRecord

_OF_THE_MACHINE = (KeyboardInterrupt, OSError, StorageInternalError, UserError)
"""Errors that say nothing of the pipeline: Ctrl-C, a full disk, a lost database, a cache without access."""


class TrialEnd:
    """A block in which a trial runs; Optuna itself keeps no reason of a failure.

    Args:
        trial: Running trial.
        ledger: Counters of its training, which are stored however the block ends.

    Raises on exit:
        StudyError: In place of an ``OSError``: what cannot be written.
    """

    def __init__(self, trial: optuna.Trial, ledger: TrainingLedger) -> None:
        self._trial = trial
        self._ledger = ledger

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Store what is known of the end."""
        if isinstance(error, UpdateFinishedTrialError):  # another process has ended the trial
            return
        record = TrialRecord(self._trial)
        if isinstance(error, _OF_THE_MACHINE):  # first: what follows needs more room in the database
            mark_for_rerun(self._trial)
        if isinstance(error, Exception | KeyboardInterrupt):  # a process that exits leaves it running
            record.store_failure(self._reason(error))
        record.store_ledger(self._ledger)
        if isinstance(error, OSError):
            raise StudyError(f"trial {self._trial.number}: {self._reason(error)}, then `resume`") from error

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, KeyboardInterrupt):
            return "it was interrupted"
        if isinstance(error, OSError):
            return f"{error.filename or 'its files'}: {error.strerror}; make room or give access"
        if isinstance(error, optuna.TrialPruned | UserError):
            return str(error)
        text = str(error) if isinstance(error, TrialError) else one_line(error)
        return f"{type(error).__name__}: {text}"
