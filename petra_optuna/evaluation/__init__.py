"""A pipeline becomes a file and four values: evaluator, prefix cache, checkpoints, budgets, preview."""

from petra_optuna.evaluation.budget import Budget
from petra_optuna.evaluation.cache import Entry, PrefixCache
from petra_optuna.evaluation.evaluator import (
    Evaluation,
    Evaluator,
    LimitUnreachable,
    Measurer,
    Yardstick,
    predictor,
    quality_of,
)
from petra_optuna.evaluation.limits import QUALITY_DROP, Limits, quality_drop
from petra_optuna.evaluation.preview import Preview, ShapeHistory, preview
from petra_optuna.evaluation.rungs import Judge, RungResult, Rungs, RungStop
from petra_optuna.evaluation.savings import Savings
from petra_optuna.evaluation.sensitivity import Curve, Point, Sensitivity, sensitivity_of
from petra_optuna.evaluation.starts import starts_of

__all__ = [
    "QUALITY_DROP",
    "Budget",
    "Curve",
    "Entry",
    "Evaluation",
    "Evaluator",
    "Judge",
    "LimitUnreachable",
    "Limits",
    "Measurer",
    "Point",
    "PrefixCache",
    "Preview",
    "RungResult",
    "RungStop",
    "Rungs",
    "Savings",
    "Sensitivity",
    "ShapeHistory",
    "Yardstick",
    "predictor",
    "preview",
    "quality_drop",
    "quality_of",
    "sensitivity_of",
    "starts_of",
]
