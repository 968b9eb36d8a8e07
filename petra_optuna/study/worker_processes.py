"""Processes that run trials: starting them, and telling whether one still lives."""

from __future__ import annotations

import contextlib
import datetime
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
from optuna.trial import FrozenTrial

from petra_optuna.errors import StudyError, UserError
from petra_optuna.study.specification import TaskSource
from petra_optuna.study.trial_record import TrialRecord, WorkerIdentity
from petra_optuna.tasks import TASKS

_QUIET = "quiet"
"""Option by which a worker prints errors only."""
_UNSIGNED_GRACE_S = 60
"""A trial that no process has signed is an orphan once it is older: signing takes milliseconds."""


def this_worker() -> WorkerIdentity:
    """Identity of this process."""
    process = psutil.Process()
    return {"host": socket.gethostname(), "pid": process.pid, "started": process.create_time()}


def is_orphan(trial: FrozenTrial) -> bool:
    """Whether a RUNNING trial's process is known to have ended.

    A trial of another host is left to the storage's heartbeat.
    """
    worker = TrialRecord(trial).worker
    if worker is None:
        started = trial.datetime_start
        age = datetime.datetime.now() - started if started else datetime.timedelta.max
        return age.total_seconds() > _UNSIGNED_GRACE_S
    if worker["host"] != socket.gethostname():
        return False
    try:
        if psutil.Process(worker["pid"]).status() == psutil.STATUS_ZOMBIE:
            return True
        started_s = float(psutil.Process(worker["pid"]).create_time())
    except psutil.NoSuchProcess:
        return True
    return abs(started_s - worker["started"]) > 1.0


@contextlib.contextmanager
def running_workers(
    study: str, storage: str, source: TaskSource, count: int, *, cache: Path | None = None
) -> Iterator[None]:
    """Run ``count`` more processes that resume the study to its stored end; the block's end waits for them.

    Args:
        study: Name of the study.
        storage: SQLAlchemy URL of its database.
        source: How each process builds the task.
        count: Number of processes.
        cache: Folder of cached prefixes; that of the study when None.

    Raises:
        UserError: When they could not build the task.
        StudyError: When one ended with an error; its own line says which.
    """
    if count and source.name not in TASKS and ":" not in source.name:
        raise UserError(
            f"workers cannot build task {source.name!r} by themselves; give a module:callable, "
            "or call petra_optuna.resume with the task in processes of your own"
        )
    options = {"study": study, "storage": storage}
    if ":" in source.name:
        options["task"] = source.name
    if cache is not None:
        options["cache"] = str(cache)
    words = [word for option, value in options.items() for word in (f"--{option}", value)]
    command = [sys.executable, "-m", "petra_optuna", "resume", *words, f"--{_QUIET}"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    if any(codes):
        raise StudyError(f"a worker ended with exit code {max(codes, key=abs)}; its message stands above")
