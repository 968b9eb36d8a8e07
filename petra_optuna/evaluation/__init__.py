"""A pipeline becomes a file and values: evaluator, prefix cache, checkpoints, budgets, preview."""

from petra_optuna.evaluation.budget import Budget
from petra_optuna.evaluation.cache import Entry, PrefixCache
from petra_optuna.evaluation.evaluator import Evaluator, LimitUnreachable, Measurer
from petra_optuna.evaluation.forms import Forms, faster_form
from petra_optuna.evaluation.limits import QUALITY_DROP, Limits, quality_drop
from petra_optuna.evaluation.preview import Preview, ShapeHistory, preview
from petra_optuna.evaluation.price import training_price
from petra_optuna.evaluation.quality import predictor, quality_of
from petra_optuna.evaluation.quantities import DEFAULT_OBJECTIVES, QUANTITIES, Quantity, counted, quantity
from petra_optuna.evaluation.record import Evaluation
from petra_optuna.evaluation.repair import Lowered
from petra_optuna.evaluation.rungs import Judge, RungResult, Rungs, Stopped
from petra_optuna.evaluation.savings import Savings
from petra_optuna.evaluation.sensitivity import Curve, Point, Sensitivity, sensitivity_of
from petra_optuna.evaluation.starts import starts_of

__all__ = [
    "DEFAULT_OBJECTIVES",
    "QUALITY_DROP",
    "QUANTITIES",
    "Budget",
    "Curve",
    "Entry",
    "Evaluation",
    "Evaluator",
    "Forms",
    "Judge",
    "LimitUnreachable",
    "Limits",
    "Lowered",
    "Measurer",
    "Point",
    "PrefixCache",
    "Preview",
    "Quantity",
    "RungResult",
    "Rungs",
    "Savings",
    "Sensitivity",
    "ShapeHistory",
    "Stopped",
    "counted",
    "faster_form",
    "predictor",
    "preview",
    "quality_drop",
    "quality_of",
    "quantity",
    "sensitivity_of",
    "starts_of",
    "training_price",
]
