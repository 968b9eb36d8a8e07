"""Mutations, operator rates, selection and the front: pure functions and frozen records."""

from petra_optuna.evolution.drawing import (
    change_record,
    change_value,
    draw_record,
    draw_value,
    random_pipeline,
)
from petra_optuna.evolution.front import (
    Bounds,
    Direction,
    contributions,
    dominates,
    entered_front,
    hypervolume,
    minimised,
    non_dominated,
    ranks,
    unit_hypervolume,
)
from petra_optuna.evolution.mutations import MUTATIONS, Mutation
from petra_optuna.evolution.rates import OperatorRates, RatesMode
from petra_optuna.evolution.selection import survivors

__all__ = [
    "MUTATIONS",
    "Bounds",
    "Direction",
    "Mutation",
    "OperatorRates",
    "RatesMode",
    "change_record",
    "change_value",
    "contributions",
    "dominates",
    "draw_record",
    "draw_value",
    "entered_front",
    "hypervolume",
    "minimised",
    "non_dominated",
    "random_pipeline",
    "ranks",
    "survivors",
    "unit_hypervolume",
]
