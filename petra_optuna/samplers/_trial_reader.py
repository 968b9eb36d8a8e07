"""Reading many trials of a relational storage at once.

Optuna builds an object for each parameter and attribute, which takes a quarter of a minute for 10,000 trials
of pipelines. Here each table is read in one query, and each distribution is parsed once.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import gc
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy import Connection, Select

_Rows = Sequence[Sequence[Any]]


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """No search for garbage within the block: it would look at a million new objects again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@without_collection()
def read_trials(
    connection: Connection, study_id: int, newer_than: int = -1, besides: Iterable[int] = ()
) -> list[FrozenTrial]:
    """Trials of a study in the order of their ids.

    Args:
        connection: Connection to the database.
        study_id: The study's key.
        newer_than: Id below which, itself included, trials are left out.
        besides: Ids of trials that are read all the same.
    """
    trial = models.TrialModel
    wanted = sqlalchemy.and_(
        trial.study_id == study_id,
        sqlalchemy.or_(trial.trial_id > newer_than, trial.trial_id.in_(list(besides))),
    )
    columns = trial.__table__.columns
    # Trials come first: what belongs to one that has finished by then is stored already.
    rows = connection.execute(sqlalchemy.select(columns).where(wanted).order_by(trial.trial_id)).all()
    read = functools.partial(_rows_by_trial, connection, wanted)
    value, step = models.TrialValueModel, models.TrialIntermediateValueModel
    param, user, system = (
        models.TrialParamModel,
        models.TrialUserAttributeModel,
        models.TrialSystemAttributeModel,
    )
    values = read(value, value.objective, value.value, value.value_type)
    params = read(param, param.param_name, param.param_value, param.distribution_json, order=param.param_id)
    users = read(user, user.key, user.value_json)
    systems = read(system, system.key, system.value_json)
    steps = read(step, step.step, step.intermediate_value, step.intermediate_value_type)
    distribution = functools.cache(json_to_distribution)
    trials = []
    for row in rows:
        parameters, distributions = _params(params.get(row.trial_id, ()), distribution)
        trials.append(
            FrozenTrial(
                number=row.number,
                state=row.state,
                value=None,
                values=_values(values.get(row.trial_id, ())),
                datetime_start=_local(row.datetime_start),
                datetime_complete=_local(row.datetime_complete),
                params=parameters,
                distributions=distributions,
                user_attrs={key: json.loads(text) for _, key, text in users.get(row.trial_id, ())},
                system_attrs={key: json.loads(text) for _, key, text in systems.get(row.trial_id, ())},
                intermediate_values={
                    at: step.stored_repr_to_intermediate_value(number, kind)
                    for _, at, number, kind in steps.get(row.trial_id, ())
                },
                trial_id=row.trial_id,
            )
        )
    return trials


def _rows_by_trial(
    connection: Connection, wanted: Any, model: Any, *columns: Any, order: Any = None
) -> Mapping[int, _Rows]:
    """Rows of a table by the id of their trial, which comes first in them."""
    query: Select[Any] = sqlalchemy.select(model.trial_id, *columns)
    query = query.join(models.TrialModel, models.TrialModel.trial_id == model.trial_id).where(wanted)
    if order is not None:
        query = query.order_by(order)
    found = defaultdict(list)
    for row in connection.execute(query).all():
        found[row[0]].append(row)
    return found


def _local(stored: datetime.datetime | None) -> datetime.datetime | None:
    """A moment in this machine's time; the database holds UTC."""
    if stored is None:
        return None
    return stored.replace(tzinfo=datetime.UTC).astimezone().replace(tzinfo=None)


def _values(rows: _Rows) -> list[float] | None:
    stored = models.TrialValueModel.stored_repr_to_value
    return [stored(number, kind) for _, _, number, kind in sorted(rows, key=lambda row: row[1])] or None


def _params(
    rows: _Rows, distribution: Callable[[str], BaseDistribution]
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Parameters and their distributions by name."""
    distributions = {name: distribution(text) for _, name, _, text in rows}
    return {name: distributions[name].to_external_repr(value) for _, name, value, _ in rows}, distributions
