"""Which trials count: the plan index of each, and those that another trial runs again."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial

from petra_optuna.samplers.records import ORPHAN, RETRY


class RerunLedger:
    """Plan indices and superseded trials of one study, taken in trial by trial.

    A re-run has the plan index of the trial that it re-runs and uses up no index of its own, so the trials
    after it have the indices that they would have had if nothing had been killed. Of two re-runs of one
    trial, which two processes may enqueue at the same moment, the first counts.

    Attributes:
        indices: Plan index by trial number.
    """

    def __init__(self) -> None:
        self.indices: dict[int, int] = {}
        self._retries = 0
        self._rerun: set[int] = set()
        self._repeated: set[int] = set()

    def add(self, trial: FrozenTrial) -> int | None:
        """Take in the next trial, in order of their numbers; the number of the trial that it re-runs."""
        retry = trial.system_attrs.get(RETRY)
        if retry is None:
            self.indices[trial.number] = trial.number - self._retries
            return None
        self.indices[trial.number] = int(retry["index"])
        self._retries += 1
        original = int(retry["of"])
        if original in self._rerun:
            self._repeated.add(trial.number)
        self._rerun.add(original)
        return original

    def is_superseded(self, trial: FrozenTrial) -> bool:
        """Whether another trial re-runs this one, or is about to, as far as trials were taken in."""
        number = trial.number
        return number in self._rerun or number in self._repeated or ORPHAN in trial.system_attrs


def superseded(trials: Sequence[FrozenTrial]) -> frozenset[int]:
    """Numbers of the killed trials, out of all trials of a study, that another one re-runs or is about to."""
    ledger = _read(trials)
    return frozenset(trial.number for trial in trials if ledger.is_superseded(trial))


def first_rerun(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> int | None:
    """Number of the earlier trial that re-runs the same one as this trial does; None where there is none."""
    retry = trial.system_attrs.get(RETRY)
    if retry is None:
        return None
    others = (other for other in trials if other.number < trial.number)
    same = (other.number for other in others if other.system_attrs.get(RETRY, {}).get("of") == retry["of"])
    return next(same, None)


def plan_indices(trials: Sequence[FrozenTrial]) -> dict[int, int]:
    """Plan index by trial number, for all trials of a study in order of their numbers."""
    return _read(trials).indices


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Finished trials by number, without those that were killed and are run again."""
    trials = study.get_trials(deepcopy=False)
    ledger = _read(trials)
    return [trial for trial in trials if trial.state.is_finished() and not ledger.is_superseded(trial)]


def _read(trials: Sequence[FrozenTrial]) -> RerunLedger:
    ledger = RerunLedger()
    for trial in trials:
        ledger.add(trial)
    return ledger
