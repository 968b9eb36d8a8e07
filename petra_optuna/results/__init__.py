"""Reading a study: front, tables, figure, note, export, confirmation."""

from petra_optuna.results.confirmation import (
    Confirmation,
    confirm,
    confirmation_of,
    confirmed_table,
    readings_of,
)
from petra_optuna.results.export import ExportResult, export_trial
from petra_optuna.results.front import (
    LimitViolations,
    Row,
    StudyFront,
    evaluation_of,
    front,
    pipeline_text,
    study_hypervolume,
)
from petra_optuna.results.publish import publish
from petra_optuna.results.report import as_csv, as_figure, as_html, as_json, as_table, limits_line
from petra_optuna.results.savings import as_line, study_ledger

__all__ = [
    "Confirmation",
    "ExportResult",
    "LimitViolations",
    "Row",
    "StudyFront",
    "as_csv",
    "as_figure",
    "as_html",
    "as_json",
    "as_line",
    "as_table",
    "confirm",
    "confirmation_of",
    "confirmed_table",
    "evaluation_of",
    "export_trial",
    "front",
    "limits_line",
    "pipeline_text",
    "publish",
    "readings_of",
    "study_hypervolume",
    "study_ledger",
]
