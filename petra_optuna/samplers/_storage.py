"""The only private Optuna calls of the package.

Optuna has no public way to read trials through the cache that ``Study.ask`` refreshes, for a sampler to
write an attribute of the trial it plans, or to ask a study where it is stored.
"""

from __future__ import annotations

from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState


def cached_trials(study: optuna.Study) -> list[FrozenTrial]:
    """All trials as they were at the last ``ask`` of this thread, by number; not to be changed."""
    return study._get_trials(deepcopy=False, use_cache=True)


def system_attributes(study: optuna.Study, trial: FrozenTrial | optuna.Trial) -> dict[str, Any]:
    """The trial's system attributes as stored now."""
    return study._storage.get_trial_system_attrs(trial._trial_id)


def set_system_attribute(
    study: optuna.Study, trial: FrozenTrial | optuna.Trial, key: str, value: Any
) -> None:
    """Store a JSON-ready system attribute of an unfinished trial."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def mark(study: optuna.Study, trial: FrozenTrial, key: str) -> bool:
    """Store True as a system attribute; False when another process has finished the trial before."""
    try:
        set_system_attribute(study, trial, key, True)
    except UpdateFinishedTrialError:
        return False
    return True


def database_url(study: optuna.Study) -> str | None:
    """URL of the relational database that holds the study; None for any other storage."""
    backend = getattr(study._storage, "_backend", study._storage)
    return backend.url if isinstance(backend, RDBStorage) else None


def fail(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Turn an unfinished trial to FAIL; False when another process has finished it before."""
    try:
        return study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    except UpdateFinishedTrialError:
        return False
