"""Studies: create, run, resume, read, export, publish."""

from petra_optuna.study.confirmation import (
    Confirmation,
    confirm,
    confirmation_of,
    confirmed_table,
    readings_of,
)
from petra_optuna.study.controls import controls
from petra_optuna.study.create import create_study
from petra_optuna.study.export import Exported, export_trial
from petra_optuna.study.front import (
    Beyond,
    Row,
    StudyFront,
    evaluation_of,
    front,
    pipeline_text,
    study_hypervolume,
)
from petra_optuna.study.objective import Objective
from petra_optuna.study.publish import publish
from petra_optuna.study.report import as_csv, as_figure, as_html, as_json, as_table, limits_line
from petra_optuna.study.run import DEFAULT_CACHE, DEFAULT_POPULATION, optimize, resume
from petra_optuna.study.savings import as_line, study_savings
from petra_optuna.study.specification import Specification, TaskSource
from petra_optuna.study.stop import Stop, stop_of
from petra_optuna.study.storage import DEFAULT_URL, artifacts_folder, open_storage
from petra_optuna.study.stored import load_study, specification_of
from petra_optuna.study.warm_start import (
    WarmStart,
    check_origin,
    origin_of,
    warm_start_line,
    warm_start_of,
)
from petra_optuna.study.workbench import training_threads

__all__ = [
    "DEFAULT_CACHE",
    "DEFAULT_POPULATION",
    "DEFAULT_URL",
    "Beyond",
    "Confirmation",
    "Exported",
    "Objective",
    "Row",
    "Specification",
    "Stop",
    "StudyFront",
    "TaskSource",
    "WarmStart",
    "artifacts_folder",
    "as_csv",
    "as_figure",
    "as_html",
    "as_json",
    "as_line",
    "as_table",
    "check_origin",
    "confirm",
    "confirmation_of",
    "confirmed_table",
    "controls",
    "create_study",
    "evaluation_of",
    "export_trial",
    "front",
    "limits_line",
    "load_study",
    "open_storage",
    "optimize",
    "origin_of",
    "pipeline_text",
    "publish",
    "readings_of",
    "resume",
    "specification_of",
    "stop_of",
    "study_hypervolume",
    "study_savings",
    "training_threads",
    "warm_start_line",
    "warm_start_of",
]
