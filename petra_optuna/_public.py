"""What ``from petra_optuna import ...`` offers; loaded on first use, because it loads torch."""

from petra_optuna.evaluation import EFFICIENCY_METRICS, Budget, Limits, Rungs
from petra_optuna.measurement import DeviceProfile
from petra_optuna.operations import default_space
from petra_optuna.pipeline import Operation, Pipeline, Recipe, SearchSpace
from petra_optuna.results import confirm, export_trial, front
from petra_optuna.samplers import PetraSampler
from petra_optuna.study import load_study, open_storage, optimize, resume
from petra_optuna.tasks import Metric, Task, build_task

__all__ = [
    "EFFICIENCY_METRICS",
    "Budget",
    "DeviceProfile",
    "Limits",
    "Metric",
    "Operation",
    "PetraSampler",
    "Pipeline",
    "Recipe",
    "Rungs",
    "SearchSpace",
    "Task",
    "build_task",
    "confirm",
    "default_space",
    "export_trial",
    "front",
    "load_study",
    "open_storage",
    "optimize",
    "resume",
]
