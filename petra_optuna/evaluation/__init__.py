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
from petra_optuna.evaluation.limits import Limits
from petra_optuna.evaluation.preview import Preview, ShapeHistory, preview

__all__ = [
    "Budget",
    "Entry",
    "Evaluation",
    "Evaluator",
    "LimitUnreachable",
    "Limits",
    "Measurer",
    "PrefixCache",
    "Preview",
    "ShapeHistory",
    "Yardstick",
    "predictor",
    "preview",
    "quality_of",
]
