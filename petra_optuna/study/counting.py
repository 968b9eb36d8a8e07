"""Numbers in a study that several processes count up, each of them once."""

from __future__ import annotations

import json

import optuna
import sqlalchemy
from sqlalchemy.exc import IntegrityError

from petra_optuna.samplers import engine_of, study_id_of

_ATTRIBUTES = sqlalchemy.table(
    "study_user_attributes", *map(sqlalchemy.column, ("study_id", "key", "value_json"))
)
"""Optuna's table of what a study holds: Optuna itself replaces a value whatever it is by then."""


def count_up(study: optuna.Study, key: str, before: int) -> bool:
    """Raise a number in a study's user attributes by one; False when another process has done so before.

    Args:
        study: Study in a relational database.
        key: Key of the attribute; one that is missing counts as 0.
        before: Number that is to be there.
    """
    row = {"study_id": study_id_of(study), "key": key}
    after = {"value_json": json.dumps(before + 1)}
    held = [_ATTRIBUTES.c[name] == value for name, value in {**row, "value_json": json.dumps(before)}.items()]
    try:
        with engine_of(study).begin() as connection:
            if connection.execute(sqlalchemy.update(_ATTRIBUTES).where(*held).values(after)).rowcount:
                return True
            if before:
                return False
            connection.execute(sqlalchemy.insert(_ATTRIBUTES).values({**row, **after}))
    except IntegrityError:
        return False
    return True
