"""Options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from petra_optuna.study import DEFAULT_URL

Storage = Annotated[
    str, typer.Option("--storage", help="SQLAlchemy URL of the database.", show_default=DEFAULT_URL)
]
StudyName = Annotated[
    str | None,
    typer.Option("--study", help="Study name; the only one where left out."),
]
Trials = Annotated[
    int | None,
    typer.Option("--trials", help="Finished trials the study shall have in the end, controls included."),
]
Timeout = Annotated[float | None, typer.Option("--timeout", help="Seconds after which no new trial starts.")]
Generations = Annotated[
    int | None, typer.Option("--generations", help="End after so many populations of finished trials.")
]
StagnationTrials = Annotated[
    int | None,
    typer.Option("--stagnation", help="End after so many trials that grew the hypervolume by less than 1 %."),
]
Target = Annotated[
    list[str] | None,
    typer.Option("--target", help="End when one trial reaches NAME=VALUE; once for each objective."),
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes that run trials side by side.")]
UserTask = Annotated[
    str | None,
    typer.Option("--task", help="module:callable that returns the study's own petra_optuna.Task."),
]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Folder of the task's data, where the task reads one.")
]
Checkpoint = Annotated[
    Path | None, typer.Option("--checkpoint", help="Safetensors file with the original model's weights.")
]
Cache = Annotated[Path, typer.Option("--cache", help="Folder of cached models, shared between studies.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]
