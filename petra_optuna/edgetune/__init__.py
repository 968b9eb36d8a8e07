"""EDGETUNE: models and training are tuned for how they serve (doi 10.1145/3528535.3533273)."""

from petra_optuna.edgetune.budgets import BudgetKind, TuningBudget
from petra_optuna.edgetune.objective import TUNING_OBJECTIVES, TrialFigures, TuningObjective
from petra_optuna.edgetune.record import TunedRecord, record_of
from petra_optuna.edgetune.specification import (
    TuningSpecification,
    WorkloadSource,
    is_tuning,
    specification_of,
)
from petra_optuna.edgetune.tune import tune
from petra_optuna.edgetune.workload import TRAINING_SPACE, Workload

__all__ = [
    "TRAINING_SPACE",
    "TUNING_OBJECTIVES",
    "BudgetKind",
    "TrialFigures",
    "TunedRecord",
    "TuningBudget",
    "TuningObjective",
    "TuningSpecification",
    "Workload",
    "WorkloadSource",
    "is_tuning",
    "record_of",
    "specification_of",
    "tune",
]
