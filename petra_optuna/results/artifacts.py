"""Checks before a stored trial's file is used; folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna

from petra_optuna.errors import StudyError
from petra_optuna.study import StudyRecord
from petra_optuna.tasks import Task


def check_task(study: optuna.Study, task: Task) -> Task:
    """The task in the study's mode, after checking that it is the study's.

    Raises:
        StudyError: When model or data differ.
    """
    specification = StudyRecord(study).specification
    task = task.in_mode(specification.mode)
    if task.fingerprint != specification.fingerprint:
        raise StudyError(
            f"the task's model or data are not those of study {study.study_name!r}; "
            "give the same `data_root` and `checkpoint`"
        )
    return task


def fetch_model(study: optuna.Study, evaluation: Mapping[str, Any], path: Path) -> None:
    """Copy a trial's file out of the artifact store.

    Args:
        study: Study of the trial.
        evaluation: Record of the trial's evaluation (``StudyRecord.evaluation``).
        path: Where the file goes.

    Raises:
        StudyError: When it is not there, or not the file that the trial stored.
    """
    stored = evaluation["artifact"]
    StudyRecord(study).fetch(stored["id"], path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != stored["sha256"]:
        raise StudyError(f"the stored file has SHA-256 {digest}, not {stored['sha256']}: it is damaged")


def check_new_folder(out: Path) -> None:
    """Refuse a folder to be written that holds something.

    Raises:
        StudyError: When it does, or is a file.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StudyError(f"{out} exists and is not an empty folder; give another `out`")


@contextlib.contextmanager
def written_folder(out: Path) -> Iterator[Path]:
    """An empty folder that becomes ``out`` when the block ends without an error.

    Raises:
        StudyError: At once, when ``out`` holds something or cannot be made.
    """
    try:
        check_new_folder(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
            folder = Path(temporary, "new")
            folder.mkdir()
            yield folder
            if out.exists():
                out.rmdir()
            shutil.move(folder, out)
    except OSError as error:
        raise StudyError(
            f"{error.filename or out} cannot be written ({error.strerror or error}); make room there or "
            "give another `out`"
        ) from error
