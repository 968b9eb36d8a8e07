"""The only private Optuna calls of the package.

Optuna has no public way for a sampler to write an attribute of the trial it plans, to know which values
``PartialFixedSampler`` is going to hold fixed, or to ask a study where it is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler, PartialFixedSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from sqlalchemy import Engine


def system_attributes(study: optuna.Study, trial: FrozenTrial | optuna.Trial) -> dict[str, Any]:
    """The trial's system attributes as stored now."""
    return study._storage.get_trial_system_attrs(trial._trial_id)


def set_system_attribute(
    study: optuna.Study, trial: FrozenTrial | optuna.Trial, key: str, value: Any
) -> None:
    """Store a JSON-ready system attribute of an unfinished trial."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def mark(study: optuna.Study, trial: FrozenTrial, key: str, value: Any = True) -> bool:
    """Store a JSON-ready system attribute; False when another process has finished the trial before."""
    try:
        set_system_attribute(study, trial, key, value)
    except UpdateFinishedTrialError:
        return False
    return True


def engine_of(study: optuna.Study) -> Engine:
    """SQLAlchemy's engine of the relational database that holds the study."""
    backend = getattr(study._storage, "_backend", study._storage)
    assert isinstance(backend, RDBStorage)
    return backend.engine


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


def storage_of(study: optuna.Study) -> BaseStorage:
    """Where the study is stored."""
    return study._storage


def study_id_of(study: optuna.Study) -> int:
    """The study's key in its storage."""
    return study._study_id


def study_attributes(study: optuna.Study) -> Mapping[str, Any]:
    """The study's user attributes, not to be changed; ``Study.user_attrs`` copies them all each time."""
    return study._storage.get_study_user_attrs(study._study_id)


def fixed_by_wrappers(sampler: BaseSampler) -> dict[str, Any]:
    """Parameters that ``PartialFixedSampler`` holds fixed around another sampler; the outermost wins."""
    if not isinstance(sampler, PartialFixedSampler):
        return {}
    return {**fixed_by_wrappers(sampler._base_sampler), **sampler._fixed_params}
