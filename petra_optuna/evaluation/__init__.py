"""A pipeline becomes a file and values: evaluator, training, prefix cache, shipping, limits, rungs."""

from petra_optuna.evaluation.budget import Budget, TrainingLedger, full_training_seconds
from petra_optuna.evaluation.cache import CacheEntry, PrefixCache
from petra_optuna.evaluation.efficiency import (
    DEFAULT_OBJECTIVES,
    EFFICIENCY_METRICS,
    EfficiencyMetric,
    count_values,
    efficiency_metric,
)
from petra_optuna.evaluation.evaluator import Evaluator, LimitUnreachable
from petra_optuna.evaluation.limits import QUALITY_DROP, Limits, quality_drop
from petra_optuna.evaluation.priors import priors_from_sensitivity
from petra_optuna.evaluation.quality import predictor, quality_in_torch, quality_of
from petra_optuna.evaluation.record import Evaluation
from petra_optuna.evaluation.rungs import EarlyStop, RungJudge, RungResult, Rungs
from petra_optuna.evaluation.sensitivity import Curve, sensitivity_of
from petra_optuna.evaluation.shipping import ConvLayouts, LoweredModel, Shipment

__all__ = [
    "DEFAULT_OBJECTIVES",
    "EFFICIENCY_METRICS",
    "QUALITY_DROP",
    "Budget",
    "CacheEntry",
    "ConvLayouts",
    "Curve",
    "EarlyStop",
    "EfficiencyMetric",
    "Evaluation",
    "Evaluator",
    "LimitUnreachable",
    "Limits",
    "LoweredModel",
    "PrefixCache",
    "RungJudge",
    "RungResult",
    "Rungs",
    "Shipment",
    "TrainingLedger",
    "count_values",
    "efficiency_metric",
    "full_training_seconds",
    "predictor",
    "priors_from_sensitivity",
    "quality_drop",
    "quality_in_torch",
    "quality_of",
    "sensitivity_of",
]
