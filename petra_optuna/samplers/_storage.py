"""The only private Optuna calls of the package.

Optuna has no public way for a sampler to write an attribute of the trial it plans, to know which values
``PartialFixedSampler`` is going to hold fixed, or to ask a study where it is stored. It has none to store a
study in one transaction, to read a trial's heartbeat, or to learn that a callback stopped the study.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
from collections.abc import Callable, Container, Mapping
from typing import Any, cast

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import BaseSampler, PartialFixedSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from petra_optuna.errors import chain_of
from petra_optuna.samplers._trial_reader import read_trials

_MANY = 500
"""Trials that may be named in one query."""


class SharedStorage(RDBStorage):
    """A relational storage whose killed trials are found by ``fail_orphans`` instead of by Optuna.

    Optuna fails every trial whose heartbeat is old and enqueues the re-run afterwards. A process that is
    killed in between loses the re-run, and a worker that was only suspended loses its trial.
    """

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        if states is not None or len(included_trial_ids) > _MANY:
            return super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        try:
            with self.engine.connect() as connection:
                return read_trials(connection, study_id, trial_id_greater_than, included_trial_ids)
        except SQLAlchemyError as error:
            raise StorageInternalError("the trials cannot be read") from error

    def record_heartbeat(self, trial_id: int) -> None:
        """Record a sign of life; where the database does not take it, the next one follows."""
        with contextlib.suppress(StorageInternalError):
            super().record_heartbeat(trial_id)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        return []


@dataclasses.dataclass(frozen=True)
class Heartbeat:
    """The last sign of life of a RUNNING trial.

    Attributes:
        last: Its moment, by the clock of the database.
        age_s: Seconds since then, by the same clock.
    """

    last: datetime.datetime
    age_s: float


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


def engine_of(study: optuna.Study) -> sqlalchemy.Engine:
    """SQLAlchemy's engine of the relational database that holds the study."""
    backend = _relational(study)
    assert backend is not None
    return backend.engine


def database_url(study: optuna.Study) -> str | None:
    """URL of the relational database that holds the study; None for any other storage."""
    backend = _relational(study)
    return None if backend is None else backend.url


def relational_storage(storage: BaseStorage) -> RDBStorage | None:
    """The relational storage behind Optuna's cache of one, or the storage itself; None for any other."""
    backend = getattr(storage, "_backend", storage)
    return backend if isinstance(backend, RDBStorage) else None


def heartbeats(study: optuna.Study) -> dict[int, Heartbeat]:
    """The last heartbeat of each RUNNING trial that has one, by trial number."""
    backend = _relational(study)
    if backend is None:
        return {}
    beat, trial = models.TrialHeartbeatModel, models.TrialModel
    query = (
        sqlalchemy.select(trial.number, beat.heartbeat)
        .join(beat, beat.trial_id == trial.trial_id)
        .where(trial.study_id == study._study_id, trial.state == TrialState.RUNNING)
    )
    try:
        with backend.engine.connect() as connection:
            now = connection.execute(sqlalchemy.select(sqlalchemy.func.now())).scalar_one()
            rows = connection.execute(query).all()
    except SQLAlchemyError as error:
        raise StorageInternalError("the heartbeats cannot be read") from error
    now = now.replace(tzinfo=None)  # as Optuna compares them
    return {number: Heartbeat(last, (now - last).total_seconds()) for number, last in rows}


def record_heartbeat(study: optuna.Study, trial: FrozenTrial) -> None:
    """Record a sign of life of a trial."""
    backend = _relational(study)
    if backend is not None:
        backend.record_heartbeat(trial._trial_id)


def store_whole(
    draft: optuna.Study, storage: RDBStorage, replaces: Callable[[Mapping[str, Any], int], bool]
) -> bool:
    """Store a study with its attributes and trials in one transaction: others see all of it or nothing.

    Args:
        draft: Study of that name in another storage.
        storage: Where it is stored.
        replaces: Whether a study of the same name, with these user attributes and so many trials, makes way.

    Returns:
        False when a study of that name is there and stays.
    """
    users, systems = models.StudyUserAttributeModel, models.StudySystemAttributeModel
    rows = [
        models.StudyDirectionModel(direction=way, objective=at) for at, way in enumerate(draft.directions)
    ]
    system_attributes = draft._storage.get_study_system_attrs(draft._study_id)
    try:
        with _create_scoped_session(storage.scoped_session) as session:
            named = session.query(models.StudyModel).filter_by(study_name=draft.study_name)
            old = named.with_for_update().one_or_none()
            if old is not None:
                stored = {row.key: json.loads(row.value_json) for row in old.user_attributes}
                trials = session.query(models.TrialModel).filter_by(study_id=old.study_id).count()
                if not replaces(stored, trials):
                    return False
                session.delete(old)
                session.flush()
            study = models.StudyModel(
                study_name=draft.study_name,
                directions=rows,
                user_attributes=[users(key=k, value_json=json.dumps(v)) for k, v in draft.user_attrs.items()],
                system_attributes=[
                    systems(key=k, value_json=json.dumps(v)) for k, v in system_attributes.items()
                ],
            )
            session.add(study)
            session.flush()
            for trial in draft.get_trials(deepcopy=False):
                storage._get_prepared_new_trial(cast("int", study.study_id), trial, session)
    except IntegrityError:  # another process has stored one in this moment
        return False
    return True


def stop_requested(study: optuna.Study) -> bool:
    """Whether a callback called ``Study.stop`` in the last call of ``Study.optimize``."""
    return study._stop_flag


def finished_elsewhere(error: BaseException) -> bool:
    """Whether Optuna raised the error because another process finished the trial.

    ``Study.optimize`` hides this behind a failed assertion of its own.
    """
    return any(
        isinstance(cause, UpdateFinishedTrialError)
        or (isinstance(cause, ValueError) and str(cause) == "Cannot tell a FAIL trial.")
        for cause in chain_of(error)
    )


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


def _relational(study: optuna.Study) -> RDBStorage | None:
    return relational_storage(study._storage)
