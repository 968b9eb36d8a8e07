"""A lock that one process on the machine holds at a time, whoever it belongs to."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from petra_optuna.errors import UserError

logger = logging.getLogger(__name__)

NAME = "petra-optuna-measurement"
_SAY_AFTER_S = 5.0
_LONGEST_WAIT_S = 3600.0
_POLL_S = 0.05
_CREDENTIALS = struct.Struct("3i")
"""Process, user and group of a peer, as Linux tells them."""


class MachineLock:
    """Only one process at a time is within the block of this context manager.

    On Linux the lock is a name among the abstract sockets: no folder, TMPDIR or right to a file decides who
    shares it, and it is free once its process has ended in whatever way. Elsewhere it is a file.

    Args:
        name: Name of the lock.
        say_after_s: Seconds after which a log line says what is waited for.
        longest_wait_s: Seconds after which waiting ends.
    """

    def __init__(
        self, name: str = NAME, say_after_s: float = _SAY_AFTER_S, longest_wait_s: float = _LONGEST_WAIT_S
    ) -> None:
        self._name = name
        self._say_after_s = say_after_s
        self._longest_wait_s = longest_wait_s
        self._release: Callable[[], None] | None = None

    def __enter__(self) -> None:
        """Wait for the lock.

        Raises:
            UserError: When another process keeps it for too long.
        """
        take = _take_socket if sys.platform == "linux" else _take_file
        began = time.monotonic()
        said = False
        while (release := take(self._name)) is None:
            waited_s = time.monotonic() - began
            if waited_s > self._longest_wait_s:
                raise UserError(
                    f"{_holder(self._name)} has kept this machine from measuring for {waited_s:.0f} s; "
                    "end it or let it finish, then run this again"
                )
            if waited_s > self._say_after_s and not said:
                logger.warning("waiting to measure: %s measures on this machine", _holder(self._name))
                said = True
            time.sleep(_POLL_S)
        self._release = release

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the next process measure."""
        if self._release is not None:
            self._release()
            self._release = None


def _take_socket(name: str) -> Callable[[], None] | None:
    """Take the lock if it is free, and return what releases it."""
    held = socket.socket(socket.AF_UNIX)
    try:
        held.bind(f"\0{name}")
        held.listen()  # whoever waits can ask which process this is
    except OSError:
        held.close()
        return None
    return held.close


def _take_file(name: str) -> Callable[[], None] | None:
    """Take the lock if it is free, and return what releases it."""
    folder = "/tmp" if os.name == "posix" else tempfile.gettempdir()
    lock = FileLock(Path(folder, f"{name}.lock"), mode=0o666)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock.release


def _holder(name: str) -> str:
    """The process that holds the lock, as well as the system tells."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(1.0)
            asking.connect(f"\0{name}")
            told = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, user, _ = _CREDENTIALS.unpack(told)
            return f"process {pid} of user {user}"
    return "another process"
