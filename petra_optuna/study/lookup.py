"""Finding a study in its database."""

from __future__ import annotations

import optuna
from optuna.storages import RDBStorage

from petra_optuna.errors import StudyError, foreign_errors_as
from petra_optuna.inference import is_nested
from petra_optuna.study.record import StudyRecord


def load_study(storage: RDBStorage, name: str | None = None) -> optuna.Study:
    """The study of that name, or the only one.

    Raises:
        StudyError: When there is none, or several and no name was given; the text lists the names. Also when
            what it holds cannot be read.

    Example:
        >>> load_study(open_storage("sqlite:///storage/mine.db"), "mine").study_name
        'mine'
    """
    names = [one for one in _names(storage) if not is_nested(one)]
    if name is None:
        if len(names) != 1:
            advice = "choose one by `name`" if names else "start one with `optimize`"
            raise StudyError(f"the database holds {_listed(names)}; {advice}")
        name = names[0]
    study = find(storage, name)
    if study is None:
        raise StudyError(f"there is no study {name!r} in the database; it holds {_listed(names)}")
    if StudyRecord(study).is_cut_off:
        raise StudyError(f"study {name!r} was created only in part; `optimize` makes it anew")
    return study


def find(storage: RDBStorage, name: str) -> optuna.Study | None:
    """The study of that name, whether its making was cut off or not; None where there is none."""
    if name not in _names(storage):
        return None
    return optuna.load_study(storage=storage, study_name=name)


def _names(storage: RDBStorage) -> list[str]:
    with foreign_errors_as(StudyError, "the database is damaged, restore a copy of it"):
        return optuna.get_all_study_names(storage)


def _listed(names: list[str]) -> str:
    return f"the studies {', '.join(sorted(names))}" if names else "no study"
