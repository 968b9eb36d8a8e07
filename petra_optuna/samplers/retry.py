"""Trials whose process died are run again, by the same plan.

Optuna's own retry copies everything that the dead trial had stored, stale constraints included. Here a
re-run gets the plan index, the plan where there was one, and what the user had enqueued; nothing else.
Other samplers would draw anew, so a trial without a plan hands on the parameters that it had drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.pipeline import SearchSpace, present_params
from petra_optuna.samplers import _storage
from petra_optuna.samplers.records import FIXED, ORPHAN, PLAN, RETRY
from petra_optuna.samplers.reruns import first_rerun, plan_indices

MAX_RETRIES = 5
"""Re-runs of one plan. A pipeline that kills its process each time would otherwise stop the study."""


def retry_stale_trial(study: optuna.Study, trial: FrozenTrial) -> None:
    """Enqueue a re-run of a killed trial, which it supersedes, unless it has one or had ``MAX_RETRIES``.

    For ``RDBStorage(heartbeat_stale_trial_callback=retry_stale_trial)`` in a storage of the user's own.
    """
    _enqueue_rerun(study, trial)


def fail_orphans(study: optuna.Study, is_orphan: Callable[[FrozenTrial], bool]) -> list[int]:
    """Turn RUNNING trials of dead processes to FAIL and enqueue their re-runs.

    Several processes may call it at once: the one whose change of state succeeds enqueues the re-run.
    A re-run that an earlier call was killed before enqueueing is enqueued now; of two that two processes
    enqueue at the same moment, the first counts and the other one is failed.

    Args:
        study: Study to clean up.
        is_orphan: Whether the process of a RUNNING trial is known to be gone.

    Returns:
        Numbers of the trials that are run again.
    """
    trials = study.get_trials(deepcopy=False)
    rerun = _rerun(trials)
    retried = []
    for trial in trials:
        if trial.state == TrialState.RUNNING and is_orphan(trial):
            # A finished trial takes no attributes, so the mark comes before the failure.
            marked = not _may_retry(trial) or _storage.mark(study, trial, ORPHAN)
            claimed = marked and _storage.fail(study, trial)
        else:
            claimed = trial.state == TrialState.FAIL and ORPHAN in trial.system_attrs
        if claimed and trial.number not in rerun and _enqueue_rerun(study, trial):
            retried.append(trial.number)
    return retried


def repeated_rerun(study: optuna.Study, trial: FrozenTrial | optuna.Trial) -> int | None:
    """Number of the trial that already re-runs what this trial is to run again; None where none does.

    Trials get their numbers in the order in which they are stored, so whoever runs the later one of two
    re-runs finds the earlier one.
    """
    if RETRY not in _storage.system_attributes(study, trial):
        return None
    trials = study.get_trials(deepcopy=False)
    this = next(other for other in trials if other.number == trial.number)
    return first_rerun(trials, this)


def rename_enqueued(study: optuna.Study, space: SearchSpace) -> None:
    """Give the parameters of waiting trials the names that they have now.

    An earlier release may have enqueued them under others, which no parameter is asked for by any more.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        enqueued = trial.system_attrs.get(FIXED, {})
        renamed = present_params(enqueued, space)
        if renamed != enqueued:
            _storage.mark(study, trial, FIXED, renamed)


def mark_for_rerun(trial: optuna.Trial) -> None:
    """Mark a trial that is about to fail through no fault of its pipeline: ``fail_orphans`` runs it again."""
    if _attempt(_storage.system_attributes(trial.study, trial)) < MAX_RETRIES:
        _storage.set_system_attribute(trial.study, trial, ORPHAN, True)


def _attempt(attributes: Mapping[str, Any]) -> int:
    return int(attributes.get(RETRY, {"attempt": 0})["attempt"])


def _may_retry(trial: FrozenTrial) -> bool:
    return _attempt(trial.system_attrs) < MAX_RETRIES


def _enqueue_rerun(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Enqueue a re-run unless there is one; False where another process's counts, or there were too many."""
    trials = study.get_trials(deepcopy=False)
    if not _may_retry(trial) or trial.number in _rerun(trials):
        return False
    inherited = {key: trial.system_attrs[key] for key in (FIXED, PLAN) if key in trial.system_attrs}
    if PLAN not in inherited and trial.params:
        inherited[FIXED] = inherited.get(FIXED, {}) | trial.params
    retry = {
        "of": trial.number,
        "index": plan_indices(trials)[trial.number],
        "attempt": _attempt(trial.system_attrs) + 1,
    }
    study.add_trial(
        optuna.trial.create_trial(state=TrialState.WAITING, system_attrs={**inherited, RETRY: retry})
    )
    trials = study.get_trials(deepcopy=False)
    waiting = [other for other in trials if other.state == TrialState.WAITING]
    repeated = [other for other in waiting if first_rerun(trials, other) is not None]
    for other in repeated:
        _storage.fail(study, other)
    return trial.number not in {other.system_attrs[RETRY]["of"] for other in repeated}


def _rerun(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of the trials that another one runs again."""
    return {int(trial.system_attrs[RETRY]["of"]) for trial in trials if RETRY in trial.system_attrs}
