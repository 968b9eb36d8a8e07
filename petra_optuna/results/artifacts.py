"""What must hold before a stored trial's file is used, and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna

from petra_optuna.errors import StudyError
from petra_optuna.study.lookup import fetch, specification_of
from petra_optuna.tasks import Task


def check_task(study: optuna.Study, task: Task) -> Task:
    """The task in the study's mode, if it is the study's.

    Raises:
        StudyError: When model or data differ.
    """
    task = task.in_mode(specification_of(study).mode)
    if task.fingerprint != specification_of(study).fingerprint:
        raise StudyError(
            f"the task's model or data are not those of study {study.study_name!r}; "
            "give the same --data-root and --checkpoint"
        )
    return task


def fetch_model(study: optuna.Study, record: dict[str, Any], path: Path) -> None:
    """Copy a trial's file out of the artifact store.

    Args:
        study: Of the trial.
        record: What ``evaluation_of`` returned.
        path: Where the file goes.

    Raises:
        StudyError: When it is not there, or not the file that the trial stored.
    """
    fetch(study, record["artifact"]["id"], path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != record["artifact"]["sha256"]:
        raise StudyError(
            f"the stored file has SHA-256 {digest}, not {record['artifact']['sha256']}: it is damaged"
        )


@contextlib.contextmanager
def written_folder(out: Path) -> Iterator[Path]:
    """An empty folder that becomes ``out`` when the block ends without an error.

    Raises:
        StudyError: At once, when ``out`` holds something or cannot be made.
    """
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise StudyError(f"{out} exists and is not an empty folder; give another --out")
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
            f"{out} cannot be written ({error.strerror or error}); give another --out"
        ) from error
