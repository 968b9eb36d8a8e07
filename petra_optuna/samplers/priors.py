"""What a study's attributes tell its sampler.

Bounds, another study's operator history, priors of fields, and readings taken after trials had ended.
"""

from __future__ import annotations

import dataclasses

import optuna

from petra_optuna.evolution import Bounds
from petra_optuna.pipeline import FieldPrior
from petra_optuna.samplers import _storage
from petra_optuna.samplers.readings import ShapeReadings, retaken_readings
from petra_optuna.samplers.records import OperatorUse

BOUNDS = "petra:bounds"
"""User attribute of a study: ``Bounds.to_dict()`` from the original model's values."""

CREDIT = "petra:credit"
"""User attribute of a study: another study's operator history, a list of ``OperatorUse`` as dictionaries."""

PRIORS = "petra:starts"
"""User attribute of a study: priors of the fields of new nodes, a list of ``FieldPrior`` as dictionaries."""


@dataclasses.dataclass(frozen=True)
class StudyPriors:
    """What the study itself holds. All but the readings is written when it is made, before any plan.

    Attributes:
        bounds: Bounds from the original model's values; None where none are stored.
        operator_history: Uses of operators in the study that this one was started from, from old to new.
        field_priors: Values near which the fields of new nodes are mostly drawn.
        metric_names: Names of the objectives; empty where they have none.
        readings: Readings of shapes that were taken after their trials had ended.
    """

    bounds: Bounds | None = None
    operator_history: tuple[OperatorUse, ...] = ()
    field_priors: tuple[FieldPrior, ...] = ()
    metric_names: tuple[str, ...] = ()
    readings: tuple[ShapeReadings, ...] = ()


def read_priors(study: optuna.Study) -> StudyPriors:
    """Read a study's attributes."""
    stored = _storage.study_attributes(study)
    return StudyPriors(
        bounds=Bounds.from_dict(stored[BOUNDS]) if BOUNDS in stored else None,
        operator_history=tuple(OperatorUse(**use) for use in stored.get(CREDIT, ())),
        field_priors=tuple(FieldPrior(**prior) for prior in stored.get(PRIORS, ())),
        metric_names=tuple(study.metric_names or ()),
        readings=retaken_readings(stored),
    )
