"""Histories of studies, kept between plans. Dropping one at any moment changes no plan."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import optuna
from optuna.storages import BaseStorage

from petra_optuna.samplers import _storage
from petra_optuna.samplers.history import History
from petra_optuna.samplers.priors import StudyPriors, read_priors
from petra_optuna.samplers.records import OperatorUse, directions_of


def operator_history(study: optuna.Study, count: int) -> list[OperatorUse]:
    """The newest uses of operators and what they earned, from old to new, inherited ones included.

    A study of another sampler has none.

    Args:
        study: Study to read.
        count: Largest number of uses to return.
    """
    history = History(directions_of(study), read_priors(study))
    history.update(study.get_trials(deepcopy=False))
    return history.operator_history(count)


class HistoryCache:
    """Keeps the latest history of each study for one sampler; copies and pickles start empty.

    Attributes:
        lock: Lock to hold while a trial is planned, so that the plans of threads know of each other.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._kept: weakref.WeakKeyDictionary[BaseStorage, dict[int, tuple[StudyPriors, History]]]
        self._kept = weakref.WeakKeyDictionary()

    def __reduce__(self) -> tuple[Any, ...]:
        return HistoryCache, ()

    def read(self, study: optuna.Study, new: Callable[[optuna.Study, StudyPriors], History]) -> History:
        """The history of all trials as they are now.

        Args:
            study: Study to read.
            new: Makes an empty history for a study and its priors.
        """
        priors = read_priors(study)
        # Not from Optuna's cache: that is as old as the last ``ask``, and a batch is asked for at once.
        trials = study.get_trials(deepcopy=False)
        # A pruner may show a sampler a part of the trials only, another one each time.
        is_whole = bool(trials) and trials[-1].number == len(trials) - 1
        kept = self._kept.setdefault(_storage.storage_of(study), {})
        key = _storage.study_id_of(study)
        if is_whole and key in kept:
            priors_then, history = kept[key]
            if priors_then == priors and history.is_same_study(trials) and history.update(trials):
                return history
        history = new(study, priors)
        history.update(trials)
        if is_whole:
            kept[key] = priors, history
        return history
