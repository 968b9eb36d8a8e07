"""What optuna-dashboard shows of a study beside its own plots: the front with all its values."""

from __future__ import annotations

import optuna
from optuna_dashboard import save_note, save_plotly_graph_object

from petra_optuna.results.confirmation import confirmation_of, confirmed_markdown
from petra_optuna.results.front import StudyFront, evaluation_of, front, pipeline_text
from petra_optuna.results.report import as_figure, as_markdown, limits_line
from petra_optuna.results.savings import as_line, study_ledger
from petra_optuna.study.warm_start import warm_start_line

_FIGURE_ID = "petra-front"


def publish(study: optuna.Study) -> StudyFront:
    """Save the front's figure and a note on it into the study, over what was saved before."""
    found = front(study)
    save_plotly_graph_object(study, as_figure(found), graph_object_id=_FIGURE_ID)
    save_note(study, _note(study, found))
    return found


def _note(study: optuna.Study, found: StudyFront) -> str:
    confirmation = confirmation_of(study)
    lines = [
        f"# Front of {found.study}",
        "",
        "Values are measured on the exported file of each trial. "
        f"Get a model's files with `petra export --study {found.study} --trial N --out DIR`.",
        "",
        as_markdown(["trial", "pipeline", *found.directions], _rows(study, found)),
        "",
        as_line(study_ledger(study)),
        "",
        *([line, ""] if (line := limits_line(found)) else []),
        *([line, ""] if (line := warm_start_line(study)) else []),
    ]
    if confirmation is None:
        return "\n".join([*lines, "The test split was not used; `petra confirm` measures the front on it."])
    return "\n".join([*lines, "# Confirmed on the test split", "", confirmed_markdown(confirmation)])


def _rows(study: optuna.Study, found: StudyFront) -> list[list[str]]:
    return [
        [
            str(row.trial),
            pipeline_text(evaluation_of(study, row.trial), "notation"),
            *(f"{row.values[name]:.4g}" for name in found.directions),
        ]
        for row in found.rows
    ]
