"""The command that confirms a front on the test split."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from petra_optuna.cli import options
from petra_optuna.cli.console import busy, make_console
from petra_optuna.cli.progress import phase_progress
from petra_optuna.cli.tasks import stored_task
from petra_optuna.database import DEFAULT_URL, artifacts_folder, open_storage
from petra_optuna.results import confirm as confirm_study
from petra_optuna.results import confirmed_table, publish
from petra_optuna.study import StudyRecord, load_study


def confirm(
    storage: options.Storage = DEFAULT_URL,
    study: options.StudyName = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write, new or empty (default: confirmed/STUDY beside the database)."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=0, help="Retrain each member with N other seeds.")] = 0,
    bootstrap: Annotated[int, typer.Option(min=100, help="Bootstrap resamples of the test split.")] = 1000,
    again: Annotated[
        bool, typer.Option("--again", help="Allow another reading of the test split; readings are counted.")
    ] = False,
    task: options.UserTask = None,
    data_root: options.DataRoot = None,
    checkpoint: options.Checkpoint = None,
    cache: options.StoredCache = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure the front once on the test split and write a table, a page and a card for each member.

    Example: petra confirm --storage sqlite:///storage/digits.db --study digits --seeds 3
    """
    stored = load_study(open_storage(storage, must_exist=True), study)
    record = StudyRecord(stored)
    specification = record.specification
    console = make_console(quiet)
    with busy(console, f"preparing task {specification.task.name}"):
        built = stored_task(specification, task, data_root, checkpoint, cache)
    folder = out or _folder(storage, stored.study_name, record.test_readings)
    with phase_progress(console) as progress:
        confirmation = confirm_study(
            stored,
            built,
            out=folder,
            seeds=seeds,
            bootstrap=bootstrap,
            again=again,
            cache=cache,
            progress=progress,
        )
    publish(stored)
    console.print(confirmed_table(confirmation))
    console.print(f"Table, page and cards: {folder}", soft_wrap=True)


def _folder(storage: str, study: str, readings: int) -> Path:
    """Beside the artifacts; a name of its own for each reading, and no slash from the study's name."""
    name = re.sub(r"[^\w.-]|^\.+", "_", study) + (f"-{readings + 1}" if readings else "")
    return artifacts_folder(storage).parent / "confirmed" / name
