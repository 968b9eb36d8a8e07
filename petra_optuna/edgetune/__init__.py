"""EDGETUNE: models and training are tuned for how they serve (doi 10.1145/3528535.3533273)."""

from petra_optuna.edgetune.budgets import BudgetKind, TuningBudget
from petra_optuna.edgetune.export import export_tuned
from petra_optuna.edgetune.objective import TUNING_OBJECTIVES, TrialFigures, TuningObjective
from petra_optuna.edgetune.record import TunedRecord, counts_of, record_of
from petra_optuna.edgetune.report import result_lines
from petra_optuna.edgetune.requests import for_requests
from petra_optuna.edgetune.result import TuningResult, fetch_file, result_of
from petra_optuna.edgetune.space import parameter
from petra_optuna.edgetune.specification import (
    TuningSpecification,
    WorkloadSource,
    is_tuning,
    specification_of,
)
from petra_optuna.edgetune.tune import DEFAULT_INFERENCES, resume_tuning, tune
from petra_optuna.edgetune.workload import TRAINING_SPACE, Workload
from petra_optuna.edgetune.workloads import WORKLOADS, build_workload, stored_workload

__all__ = [
    "DEFAULT_INFERENCES",
    "TRAINING_SPACE",
    "TUNING_OBJECTIVES",
    "WORKLOADS",
    "BudgetKind",
    "TrialFigures",
    "TunedRecord",
    "TuningBudget",
    "TuningObjective",
    "TuningResult",
    "TuningSpecification",
    "Workload",
    "WorkloadSource",
    "build_workload",
    "counts_of",
    "export_tuned",
    "fetch_file",
    "for_requests",
    "is_tuning",
    "parameter",
    "record_of",
    "result_lines",
    "result_of",
    "resume_tuning",
    "specification_of",
    "stored_workload",
    "tune",
]
