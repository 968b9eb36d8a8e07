"""Helpers: processes that run trials beside their parent. The parent starts them, and they end with it.

A helper reads a pipe on stdin of which its parent alone holds the other end. However the parent ends, the
system closes that end, on every system and without a moment in which it could be missed. The helper then
finishes its trial, so that nothing is lost, and starts no other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from petra_optuna.errors import StudyError, UserError
from petra_optuna.study.specification import TaskSource
from petra_optuna.study.stop import Stop
from petra_optuna.tasks import TASKS

logger = logging.getLogger(__name__)
_FLAGS = ("quiet", "helper")
"""Options by which a helper prints errors only and ends with its parent."""
_END_S = 20
"""Seconds that a helper has to clean up when its parent's run is cut off."""


@dataclasses.dataclass(frozen=True)
class HelperCommand:
    """What a helper is started with: all of it from the caller, nothing from the database.

    Attributes:
        study: Name of the study.
        storage: SQLAlchemy URL of its database.
        source: How the helper builds the task.
        stop: When the run ends.
        cache: Folder of cached prefixes; that of the study when None.
    """

    study: str
    storage: str
    source: TaskSource
    stop: Stop
    cache: Path | None = None

    def words(self) -> list[str]:
        """The command line."""
        options = [
            ("study", self.study),
            ("storage", self.storage),
            ("task", self.source.name),
            ("data-root", self.source.data_root),
            ("checkpoint", self.source.checkpoint),
            ("cache", self.cache),
            ("trials", self.stop.trials),
            ("timeout", self.stop.timeout_s),
            ("generations", self.stop.generations),
            ("stagnation", self.stop.stagnation),
            *(("target", f"{name}={value!r}") for name, value in (self.stop.targets or {}).items()),
        ]
        given = [f"--{option}={value}" for option, value in options if value is not None]
        flags = [f"--{flag}" for flag in _FLAGS]
        return [sys.executable, "-m", "petra_optuna", "resume", *given, *flags]


def check_source(source: TaskSource) -> None:
    """Refuse a task that another process cannot build.

    Raises:
        UserError: Naming the task.
    """
    if source.name not in TASKS and ":" not in source.name:
        raise UserError(
            f"workers cannot build task {source.name!r} by themselves; give a module:callable, "
            "or call petra_optuna.resume with the task in processes of your own"
        )


class Helpers:
    """Running helpers; the end of one with an error is told of when it happens.

    Args:
        words: Command line of each.
        count: Number of helpers.
    """

    def __init__(self, words: Sequence[str], count: int) -> None:
        self._cut_off = False
        self._processes = [subprocess.Popen(words, stdin=subprocess.PIPE) for _ in range(count)]
        self._watchers = [
            threading.Thread(target=self._watch, args=(one,), daemon=True) for one in self._processes
        ]
        for watcher in self._watchers:
            watcher.start()

    def wait(self) -> None:
        """Wait until all have ended."""
        for watcher in self._watchers:
            watcher.join()

    def end(self) -> None:
        """End those that still run; they mark their trials to be run again."""
        self._cut_off = True
        for process in self._processes:
            process.terminate()
        for process, watcher in zip(self._processes, self._watchers, strict=True):
            watcher.join(_END_S)
            process.kill()
        self.wait()

    @property
    def failures(self) -> list[str]:
        """How those ended that ended with an error."""
        codes = [process.returncode for process in self._processes]
        return [_how_it_ended(code) for code in codes if code]

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        if process.stdin is not None:
            process.stdin.close()
        if code and not self._cut_off:
            logger.warning("a worker process ended %s; the others go on", _how_it_ended(code))


@contextlib.contextmanager
def running_helpers(command: HelperCommand, count: int) -> Iterator[Helpers]:
    """Run ``count`` helpers; the block's end waits for them.

    Raises:
        StudyError: When one ended with an error; its own line says which.
    """
    helpers = Helpers(command.words(), count)
    try:
        yield helpers
        helpers.wait()
    finally:
        helpers.end()
    if helpers.failures:
        raise StudyError(f"a worker process ended {helpers.failures[0]}; its message stands above")


class ParentWatch:
    """The helper's end of the pipe: an Optuna callback that stops the study once the parent has ended.

    Args:
        pipe: File descriptor of what the helper reads as stdin.
    """

    def __init__(self, pipe: int) -> None:
        self._ended = threading.Event()
        threading.Thread(target=self._watch, args=(pipe,), daemon=True).start()

    @property
    def parent_ended(self) -> bool:
        """Whether the parent process has ended."""
        return self._ended.is_set()

    def __call__(self, study: optuna.Study, _trial: FrozenTrial) -> None:
        """Stop the study once the parent has ended."""
        if self.parent_ended:
            study.stop()

    def _watch(self, pipe: int) -> None:
        while os.read(pipe, 1):  # without the lock of a file object, which would outlive the interpreter
            pass
        self._ended.set()


def _how_it_ended(code: int) -> str:
    return f"by signal {-code}" if code < 0 else f"with exit code {code}"
