"""What optuna-dashboard shows of a study beside its own plots: the front with all its values."""

from __future__ import annotations

from string import Template

import optuna
from optuna_dashboard import save_note, save_plotly_graph_object

from petra_optuna.results.card import TEMPLATES
from petra_optuna.results.confirmation import confirmation_of, confirmed_markdown
from petra_optuna.results.front import StudyFront, front, pipeline_text
from petra_optuna.results.page import as_figure
from petra_optuna.results.report import as_markdown, ledger_line, limits_line, standing_line
from petra_optuna.study import StudyRecord, warm_start_line

_FIGURE_ID = "petra-front"


def publish(study: optuna.Study) -> StudyFront:
    """Save the front's figure and a note on it into the study, over what was saved before."""
    read = front(study)
    save_plotly_graph_object(study, as_figure(read), graph_object_id=_FIGURE_ID)
    save_note(study, _note(study, read))
    return read


def _note(study: optuna.Study, read: StudyFront) -> str:
    confirmation = confirmation_of(study)
    lines = [
        ledger_line(read.ledger),
        standing_line(read),
        limits_line(read),
        warm_start_line(study),
    ]
    confirmed = (TEMPLATES / "not_confirmed.md").read_text(encoding="utf-8")
    if confirmation is not None:
        confirmed = f"# Confirmed on the test split\n\n{confirmed_markdown(confirmation)}"
    return Template((TEMPLATES / "note.md").read_text(encoding="utf-8")).substitute(
        study=read.study,
        front=as_markdown(["trial", "pipeline", *read.directions], _rows(study, read)),
        lines="\n\n".join(line for line in lines if line),
        confirmation=confirmed,
    )


def _rows(study: optuna.Study, read: StudyFront) -> list[list[str]]:
    record = StudyRecord(study)
    return [
        [
            str(row.trial),
            pipeline_text(record.evaluation(row.trial), "notation"),
            *(f"{row.values[name]:.4g}" for name in read.directions),
        ]
        for row in read.rows
    ]
