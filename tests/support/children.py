"""Functions run in processes of their own, for tests of what a kill leaves."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def child_of(work: Callable[[], object]) -> Iterator[int]:
    """Number of a forked process that calls ``work``; the block's end waits for it."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    assert child.pid is not None
    try:
        yield child.pid
        child.join()
    finally:
        child.kill()


def run_in_child(work: Callable[[], object]) -> int:
    """Exit code of a forked process that calls ``work``; negative where a signal ended it."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def kill_this_process() -> None:
    """SIGKILL: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)
