"""Names that ``from petra_optuna import ...`` offers; loaded on first use, because they load torch."""

from petra_optuna.database import open_storage
from petra_optuna.edgetune import (
    TrialFigures,
    TuningBudget,
    TuningObjective,
    Workload,
    build_workload,
    export_tuned,
    result_of,
    resume_tuning,
    tune,
)
from petra_optuna.evaluation import EFFICIENCY_METRICS, Budget, Limits, Rungs
from petra_optuna.evolution import MUTATIONS, Mutation
from petra_optuna.inference import EdgeDevice
from petra_optuna.measurement import DeviceProfile
from petra_optuna.operations import (
    BODY_OPERATIONS,
    CONVERSIONS,
    BFloat16,
    Context,
    DropBlocks,
    Half,
    LowRank,
    Prune,
    QuantizeAware,
    QuantizeDynamic,
    QuantizeNncf,
    QuantizeStatic,
    RegularizedTrain,
    Train,
    default_space,
)
from petra_optuna.pipeline import Applied, Operation, Pipeline, Recipe, SearchSpace
from petra_optuna.results import as_figure, confirm, confirmation_of, export_trial, front
from petra_optuna.samplers import PetraSampler
from petra_optuna.study import Stop, TaskSource, load_study, optimize, resume
from petra_optuna.tasks import Metric, Task, build_task, open_once

__all__ = [
    "BODY_OPERATIONS",
    "CONVERSIONS",
    "EFFICIENCY_METRICS",
    "MUTATIONS",
    "Applied",
    "BFloat16",
    "Budget",
    "Context",
    "DeviceProfile",
    "DropBlocks",
    "EdgeDevice",
    "Half",
    "Limits",
    "LowRank",
    "Metric",
    "Mutation",
    "Operation",
    "PetraSampler",
    "Pipeline",
    "Prune",
    "QuantizeAware",
    "QuantizeDynamic",
    "QuantizeNncf",
    "QuantizeStatic",
    "Recipe",
    "RegularizedTrain",
    "Rungs",
    "SearchSpace",
    "Stop",
    "Task",
    "TaskSource",
    "Train",
    "TrialFigures",
    "TuningBudget",
    "TuningObjective",
    "Workload",
    "as_figure",
    "build_task",
    "build_workload",
    "confirm",
    "confirmation_of",
    "default_space",
    "export_trial",
    "export_tuned",
    "front",
    "load_study",
    "open_once",
    "open_storage",
    "optimize",
    "result_of",
    "resume",
    "resume_tuning",
    "tune",
]
