"""Reading a study: front, tables, page, note, export, confirmation."""

from petra_optuna.results.artifacts import check_new_folder, written_folder
from petra_optuna.results.confirmation import (
    Confirmation,
    Progress,
    confirm,
    confirmation_of,
    confirmed_table,
)
from petra_optuna.results.export import ExportResult, export_trial
from petra_optuna.results.front import (
    LimitViolations,
    Row,
    StudyFront,
    front,
    pipeline_text,
    study_hypervolume,
)
from petra_optuna.results.page import as_figure, as_html
from petra_optuna.results.publish import publish
from petra_optuna.results.recommend import recommend_trial, recommendation_of
from petra_optuna.results.report import (
    added_line,
    as_csv,
    as_json,
    as_table,
    ledger_line,
    limits_line,
    plain_table,
    standing_line,
    values_line,
)
from petra_optuna.results.runnable import write_json, write_runnable
from petra_optuna.results.serving import recommendation_lines, recommendation_table, request_lines

__all__ = [
    "Confirmation",
    "ExportResult",
    "LimitViolations",
    "Progress",
    "Row",
    "StudyFront",
    "added_line",
    "as_csv",
    "as_figure",
    "as_html",
    "as_json",
    "as_table",
    "check_new_folder",
    "confirm",
    "confirmation_of",
    "confirmed_table",
    "export_trial",
    "front",
    "ledger_line",
    "limits_line",
    "pipeline_text",
    "plain_table",
    "publish",
    "recommend_trial",
    "recommendation_lines",
    "recommendation_of",
    "recommendation_table",
    "request_lines",
    "standing_line",
    "study_hypervolume",
    "values_line",
    "write_json",
    "write_runnable",
    "written_folder",
]
