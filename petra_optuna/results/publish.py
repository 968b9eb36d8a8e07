"""What optuna-dashboard shows of a study beside its own plots: the front with all its values."""

from __future__ import annotations

import optuna
from optuna_dashboard import save_note, save_plotly_graph_object

from petra_optuna.results.confirmation import confirmation_of, confirmed_markdown
from petra_optuna.results.front import StudyFront, front, pipeline_text
from petra_optuna.results.page import as_figure
from petra_optuna.results.report import as_markdown, ledger_line, limits_line
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
        f"# Front of {read.study}",
        "",
        "Values are measured on the exported file of each trial. `export_trial` writes the files of a trial.",
        "",
        as_markdown(["trial", "pipeline", *read.directions], _rows(study, read)),
        "",
        ledger_line(StudyRecord(study).ledger()),
        "",
        *([line, ""] if (line := limits_line(read)) else []),
        *([line, ""] if (line := warm_start_line(study)) else []),
    ]
    if confirmation is None:
        return "\n".join([*lines, "The test split was not used; `confirm` measures the front on it."])
    return "\n".join([*lines, "# Confirmed on the test split", "", confirmed_markdown(confirmation)])


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
