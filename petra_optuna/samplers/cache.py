"""Histories that are kept between plans. Dropping one at any moment changes no plan."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import optuna
from optuna.storages import BaseStorage

from petra_optuna.evolution import Bounds
from petra_optuna.samplers import _storage
from petra_optuna.samplers.history import History

BOUNDS = "petra:bounds"
"""User attribute of a study: ``Bounds.to_dict()`` from the original model's values."""


def frozen_bounds(study: optuna.Study) -> Bounds | None:
    """The study's bounds; None where none are stored."""
    stored = _storage.study_attributes(study).get(BOUNDS)
    return None if stored is None else Bounds.from_dict(stored)


class HistoryCache:
    """The latest history of each study, for one sampler; copies and pickles start empty.

    Attributes:
        lock: To be held while a trial is planned, so that the plans of threads know of each other.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._kept: weakref.WeakKeyDictionary[BaseStorage, dict[int, tuple[Bounds | None, History]]]
        self._kept = weakref.WeakKeyDictionary()

    def __reduce__(self) -> tuple[Any, ...]:
        return HistoryCache, ()

    def read(self, study: optuna.Study, new: Callable[[optuna.Study, Bounds | None], History]) -> History:
        """The history of all trials as they are now.

        Args:
            study: The study.
            new: Makes an empty history for the study and its frozen bounds.
        """
        bounds = frozen_bounds(study)
        # Not from Optuna's cache: that is as old as the last ``ask``, and a batch is asked for at once.
        trials = study.get_trials(deepcopy=False)
        # A pruner may show a sampler a part of the trials only, another one each time.
        whole = bool(trials) and trials[-1].number == len(trials) - 1
        kept = self._kept.setdefault(_storage.storage_of(study), {})
        key = _storage.study_id_of(study)
        if whole and key in kept:
            bounds_then, history = kept[key]
            if bounds_then == bounds and history.is_same_study(trials) and history.update(trials):
                return history
        history = new(study, bounds)
        history.update(trials)
        if whole:
            kept[key] = bounds, history
        return history
