"""Temporary folders of this process, which the next process removes where this one cannot.

They lie in one folder of the process. A lock on it, which the system lifts when the process ends in whatever
way, tells others that it is in use.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
import time
from pathlib import Path

_PREFIX = "petra-scratch-"
_CAN_LOCK = os.name == "posix"
_GRACE_S = 60.0
"""Age at which a folder without a lock counts as left behind: its process locks it right after making it."""


def scratch_folder(purpose: str) -> tempfile.TemporaryDirectory[str]:
    """A new temporary folder; its name begins with the purpose.

    The first one of a process also removes those that dead processes of the same user have left.
    """
    return tempfile.TemporaryDirectory(prefix=f"{purpose}-", dir=_home(os.getpid()))


@functools.cache
def _home(pid: int) -> Path:
    """This process's folder, for all of its life. A forked process gets one of its own."""
    parent = Path(tempfile.gettempdir())
    if _CAN_LOCK:
        _remove_left_behind(parent)
    home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    if _CAN_LOCK:
        _lock(home)
    atexit.register(_remove, home, pid)
    return home


def _remove(home: Path, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(home, ignore_errors=True)


def _remove_left_behind(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another process removes it too
            found = folder.lstat()
            if found.st_uid == os.getuid() and time.time() - found.st_mtime > _GRACE_S:
                lock = _lock(folder)
                if lock is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(lock)


def _lock(folder: Path) -> int | None:
    """Lock a folder for as long as this process lives; None where another one has locked it."""
    import fcntl  # not on every system

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
