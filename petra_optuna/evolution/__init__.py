"""Mutations, operator rates, selection, surrogate and the front: pure functions and frozen records."""

from petra_optuna.evolution.archive import FrontTrace, Skyband
from petra_optuna.evolution.features import params_features, pipeline_features
from petra_optuna.evolution.front import (
    Bounds,
    contributions,
    hypervolume,
    minimised,
    non_dominated,
    ranks,
    unit_hypervolume,
)
from petra_optuna.evolution.gene_sources import RANDOM, GeneSource, PriorGenes, random_pipeline
from petra_optuna.evolution.mutations import MUTATIONS, Mutation
from petra_optuna.evolution.rates import OperatorRates, RatesMode
from petra_optuna.evolution.selection import (
    RankedRows,
    Survival,
    fill_by_rank,
    hypervolume_subset,
    is_feasible,
    sample_excluding,
    sample_rows,
    sample_split_front,
    total_violations,
)
from petra_optuna.evolution.surrogate import Surrogate
from petra_optuna.evolution.ties import MeasuredPoint, tied_front
from petra_optuna.evolution.tpe import TpeGenes, Vectors, vectors_of
from petra_optuna.evolution.values import STEP_SHARE, change_value, draw_value

__all__ = [
    "MUTATIONS",
    "RANDOM",
    "STEP_SHARE",
    "Bounds",
    "FrontTrace",
    "GeneSource",
    "MeasuredPoint",
    "Mutation",
    "OperatorRates",
    "PriorGenes",
    "RankedRows",
    "RatesMode",
    "Skyband",
    "Surrogate",
    "Survival",
    "TpeGenes",
    "Vectors",
    "change_value",
    "contributions",
    "draw_value",
    "fill_by_rank",
    "hypervolume",
    "hypervolume_subset",
    "is_feasible",
    "minimised",
    "non_dominated",
    "params_features",
    "pipeline_features",
    "random_pipeline",
    "ranks",
    "sample_excluding",
    "sample_rows",
    "sample_split_front",
    "tied_front",
    "total_violations",
    "unit_hypervolume",
    "vectors_of",
]
