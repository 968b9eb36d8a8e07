"""A study in memory, which is stored whole once it holds all that it begins with."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.study import StudyDirection


def draft_study(name: str, objectives: Sequence[tuple[str, str]]) -> optuna.Study:
    """An empty study in memory.

    Args:
        name: Name of the study.
        objectives: Name and direction of each objective.
    """
    directions = [StudyDirection[direction.upper()] for _, direction in objectives]
    with _unlogged():
        study = optuna.create_study(study_name=name, directions=directions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names([metric for metric, _ in objectives])
    return study


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Optuna says where a study is created; a draft is in memory only until it is stored."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
