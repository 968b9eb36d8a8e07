"""Processes that run trials: starting them, and knowing whether one still lives."""

from __future__ import annotations

import contextlib
import datetime
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import TypedDict

import psutil
from optuna.trial import FrozenTrial

from petra_optuna.errors import StudyError, UserError
from petra_optuna.study import record as attributes
from petra_optuna.study.specification import TaskSource
from petra_optuna.tasks import TASKS

_UNSIGNED_GRACE_S = 60
"""A trial without a worker's name is an orphan once it is older: signing takes milliseconds."""


class Identity(TypedDict):
    """A process on a host; the start time tells it from a later one of the same number."""

    host: str
    pid: int
    started: float


def identity() -> Identity:
    """This process."""
    process = psutil.Process()
    return {"host": socket.gethostname(), "pid": process.pid, "started": process.create_time()}


def is_orphan(trial: FrozenTrial) -> bool:
    """Whether a RUNNING trial's process is known to have ended.

    A trial of another host is left to the storage's heartbeat.
    """
    worker: Identity | None = trial.user_attrs.get(attributes.WORKER)
    if worker is None:
        started = trial.datetime_start
        age = datetime.datetime.now() - started if started else datetime.timedelta.max
        return age.total_seconds() > _UNSIGNED_GRACE_S
    if worker["host"] != socket.gethostname():
        return False
    try:
        if psutil.Process(worker["pid"]).status() == psutil.STATUS_ZOMBIE:
            return True
        living = float(psutil.Process(worker["pid"]).create_time())
    except psutil.NoSuchProcess:
        return True
    return abs(living - worker["started"]) > 1.0


@contextlib.contextmanager
def helpers(study: str, storage: str, source: TaskSource, count: int) -> Iterator[None]:
    """``count`` more processes that resume the study during the block, to the end that it stores.

    Raises:
        UserError: When they could not build the task.
        StudyError: When one ended with an error; its own line says which.
    """
    if count and source.name not in TASKS and ":" not in source.name:
        raise UserError(
            f"workers cannot build task {source.name!r} by themselves; give a module:callable, "
            "or call petra_optuna.resume with the task in processes of your own"
        )
    command = [sys.executable, "-m", "petra_optuna", "resume", "--quiet"]
    command += ["--study", study, "--storage", storage]
    command += ["--task", source.name] if ":" in source.name else []
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
