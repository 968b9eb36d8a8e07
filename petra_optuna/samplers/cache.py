"""What a study holds from its making on, and histories kept between plans.

Dropping a history at any moment changes no plan.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections.abc import Callable
from typing import Any

import optuna
from optuna.storages import BaseStorage

from petra_optuna.evolution import Bounds
from petra_optuna.pipeline import FieldPrior
from petra_optuna.samplers import _storage
from petra_optuna.samplers.history import History
from petra_optuna.samplers.records import OperatorUse, directions_of

BOUNDS = "petra:bounds"
"""User attribute of a study: ``Bounds.to_dict()`` from the original model's values."""


CREDIT = "petra:credit"
"""User attribute of a study: another study's success history, a list of ``OperatorUse`` as dictionaries."""


PRIORS = "petra:starts"
"""User attribute of a study: where fields of new nodes begin, a list of ``FieldPrior`` as dictionaries."""


@dataclasses.dataclass(frozen=True)
class StudyPriors:
    """What a study's attributes give its sampler; written when it is made, before any plan.

    Attributes:
        bounds: From the original model's values; None where none are stored.
        inherited: Success history of the study that it was started from, from old to new.
        starts: Where fields of new nodes begin.
    """

    bounds: Bounds | None = None
    inherited: tuple[OperatorUse, ...] = ()
    starts: tuple[FieldPrior, ...] = ()


def read_priors(study: optuna.Study) -> StudyPriors:
    """Read a study's attributes."""
    stored = _storage.study_attributes(study)
    bounds = Bounds.from_dict(stored[BOUNDS]) if BOUNDS in stored else None
    inherited = tuple(OperatorUse(**use) for use in stored.get(CREDIT, ()))
    return StudyPriors(bounds, inherited, tuple(FieldPrior(**start) for start in stored.get(PRIORS, ())))


def success_history(study: optuna.Study, count: int) -> list[OperatorUse]:
    """The newest mutations of a study and what they earned, from old to new, inherited ones included.

    A study of another sampler has none.
    """
    frozen = read_priors(study)
    trials = study.get_trials(deepcopy=False)
    return History.read(trials, directions_of(study), frozen.bounds, inherited=frozen.inherited).uses(count)


class HistoryCache:
    """The latest history of each study, for one sampler; copies and pickles start empty.

    Attributes:
        lock: To be held while a trial is planned, so that the plans of threads know of each other.
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
            study: The study.
            new: Makes an empty history for the study and what is frozen in it.
        """
        frozen = read_priors(study)
        # Not from Optuna's cache: that is as old as the last ``ask``, and a batch is asked for at once.
        trials = study.get_trials(deepcopy=False)
        # A pruner may show a sampler a part of the trials only, another one each time.
        whole = bool(trials) and trials[-1].number == len(trials) - 1
        kept = self._kept.setdefault(_storage.storage_of(study), {})
        key = _storage.study_id_of(study)
        if whole and key in kept:
            frozen_then, history = kept[key]
            if frozen_then == frozen and history.is_same_study(trials) and history.update(trials):
                return history
        history = new(study, frozen)
        history.update(trials)
        if whole:
            kept[key] = frozen, history
        return history
