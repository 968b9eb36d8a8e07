"""A pipeline becomes a file and values: evaluator, prefix cache, checkpoints, budgets, preview."""

from petra_optuna.evaluation.budget import Budget
from petra_optuna.evaluation.cache import Entry, PrefixCache
from petra_optuna.evaluation.conv_layouts import ConvLayouts, faster_layout
from petra_optuna.evaluation.efficiency import (
    DEFAULT_OBJECTIVES,
    EFFICIENCY_METRICS,
    EfficiencyMetric,
    counted,
    efficiency_metric,
)
from petra_optuna.evaluation.evaluator import Evaluator, LimitUnreachable, Measurer
from petra_optuna.evaluation.ledger import TrainingLedger
from petra_optuna.evaluation.limits import QUALITY_DROP, Limits, quality_drop
from petra_optuna.evaluation.preview import Preview, ShapeHistory, preview
from petra_optuna.evaluation.price import full_training_seconds
from petra_optuna.evaluation.priors import priors_from_sensitivity
from petra_optuna.evaluation.quality import predictor, quality_of
from petra_optuna.evaluation.record import Evaluation
from petra_optuna.evaluation.repair import LoweredModel
from petra_optuna.evaluation.rungs import Judge, RungResult, Rungs, Stopped
from petra_optuna.evaluation.sensitivity import Curve, Point, Sensitivity, sensitivity_of

__all__ = [
    "DEFAULT_OBJECTIVES",
    "EFFICIENCY_METRICS",
    "QUALITY_DROP",
    "Budget",
    "ConvLayouts",
    "Curve",
    "EfficiencyMetric",
    "Entry",
    "Evaluation",
    "Evaluator",
    "Judge",
    "LimitUnreachable",
    "Limits",
    "LoweredModel",
    "Measurer",
    "Point",
    "PrefixCache",
    "Preview",
    "RungResult",
    "Rungs",
    "Sensitivity",
    "ShapeHistory",
    "Stopped",
    "TrainingLedger",
    "counted",
    "efficiency_metric",
    "faster_layout",
    "full_training_seconds",
    "predictor",
    "preview",
    "priors_from_sensitivity",
    "quality_drop",
    "quality_of",
    "sensitivity_of",
]
