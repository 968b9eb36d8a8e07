"""Creating, running and resuming studies."""

from petra_optuna.study.controls import controls
from petra_optuna.study.create import create_study
from petra_optuna.study.lookup import load_study, specification_of
from petra_optuna.study.objective import Objective
from petra_optuna.study.run import DEFAULT_CACHE, DEFAULT_POPULATION, optimize, resume
from petra_optuna.study.specification import Specification, TaskSource
from petra_optuna.study.stop import Stop, stop_of
from petra_optuna.study.storage import DEFAULT_URL, artifacts_folder, open_storage
from petra_optuna.study.warm_start import (
    WarmStart,
    check_origin,
    origin_of,
    warm_start_line,
    warm_start_of,
)
from petra_optuna.study.worker_context import training_threads

__all__ = [
    "DEFAULT_CACHE",
    "DEFAULT_POPULATION",
    "DEFAULT_URL",
    "Objective",
    "Specification",
    "Stop",
    "TaskSource",
    "WarmStart",
    "artifacts_folder",
    "check_origin",
    "controls",
    "create_study",
    "load_study",
    "open_storage",
    "optimize",
    "origin_of",
    "resume",
    "specification_of",
    "stop_of",
    "training_threads",
    "warm_start_line",
    "warm_start_of",
]
