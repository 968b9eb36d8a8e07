"""Mutations, operator rates, selection and the front: pure functions and frozen records."""

from petra_optuna.aliases import Array, Direction
from petra_optuna.evolution.archive import FrontTrace, Skyband
from petra_optuna.evolution.drawing import change_record, change_value, draw_record, draw_value
from petra_optuna.evolution.features import params_features, pipeline_features
from petra_optuna.evolution.front import (
    Bounds,
    contributions,
    dominates,
    hypervolume,
    minimised,
    non_dominated,
    ranks,
    unit_hypervolume,
)
from petra_optuna.evolution.genes import RANDOM, GeneSource, PriorGenes, random_pipeline
from petra_optuna.evolution.mutations import MUTATIONS, Mutation
from petra_optuna.evolution.rates import OperatorRates, RatesMode
from petra_optuna.evolution.selection import (
    RankedRows,
    Survival,
    drawn,
    fill_by_rank,
    hypervolume_subset,
    is_feasible,
    others,
    total_violations,
)
from petra_optuna.evolution.surrogate import Surrogate, volume_gains
from petra_optuna.evolution.tpe import TpeGenes, vectors_of

__all__ = [
    "MUTATIONS",
    "RANDOM",
    "Array",
    "Bounds",
    "Direction",
    "FrontTrace",
    "GeneSource",
    "Mutation",
    "OperatorRates",
    "PriorGenes",
    "RankedRows",
    "RatesMode",
    "Skyband",
    "Surrogate",
    "Survival",
    "TpeGenes",
    "change_record",
    "change_value",
    "contributions",
    "dominates",
    "draw_record",
    "draw_value",
    "drawn",
    "fill_by_rank",
    "hypervolume",
    "hypervolume_subset",
    "is_feasible",
    "minimised",
    "non_dominated",
    "others",
    "params_features",
    "pipeline_features",
    "random_pipeline",
    "ranks",
    "total_violations",
    "unit_hypervolume",
    "vectors_of",
    "volume_gains",
]
