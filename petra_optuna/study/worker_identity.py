"""The identity of a worker process, and whether the process with that identity still lives."""

from __future__ import annotations

import enum
import os
import socket
import sys
from pathlib import Path

import psutil

from petra_optuna.study.trial_record import WorkerIdentity

_PROC = Path("/proc")
_STATE, _START = 0, 19
"""Fields of ``/proc/PID/stat`` after the name of the program: state, and start in clock ticks after boot."""


class Life(enum.Enum):
    """Whether a process lives, as far as this one can tell."""

    ALIVE = enum.auto()
    DEAD = enum.auto()
    UNKNOWN = enum.auto()


def this_worker() -> WorkerIdentity:
    """Identity of this process."""
    process = psutil.Process()
    identity: WorkerIdentity = {
        "host": socket.gethostname(),
        "pid": process.pid,
        "started": process.create_time(),
    }
    table = process_table()
    if table is not None:
        identity["process_table"] = table
        identity["start_mark"] = _start_mark(process.pid) or 0.0
    return identity


def life_of(worker: WorkerIdentity) -> Life:
    """Whether a worker lives.

    Unknown for a process of another table (another machine or container, or the same one before its last
    boot) and for one that this user may not see.
    """
    table = process_table()
    if table is None or worker.get("process_table") != table:
        return Life.UNKNOWN
    try:
        mark = _start_mark(worker["pid"])
    except PermissionError:
        return Life.UNKNOWN
    same = mark is not None and abs(mark - worker["start_mark"]) <= 1.0
    return Life.ALIVE if same else Life.DEAD


def process_table() -> str | None:
    """What a process number of this process counts in; None where that cannot be told.

    On Linux the boot and the PID namespace: two containers may have one host name and the same numbers.
    Elsewhere the host name.
    """
    if sys.platform != "linux":
        return socket.gethostname()
    try:
        if os.readlink(_PROC / "self") != str(os.getpid()):
            return None  # /proc shows the processes of another namespace
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:
        return None


def _start_mark(pid: int) -> float | None:
    """What tells a process from a later one with its number; None where it has ended.

    On Linux the ticks from boot to its start: the wall clock may be set in between. Elsewhere its start in
    seconds.

    Raises:
        PermissionError: When the system does not show the process to this user.
    """
    if sys.platform != "linux":
        try:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
        except psutil.NoSuchProcess:
            return None
        except psutil.AccessDenied as error:
            raise PermissionError(f"process {pid} is hidden") from error
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        if _exists(pid):  # mounted with hidepid, /proc leaves out the processes of others
            raise PermissionError(f"process {pid} is hidden") from None
        return None
    fields = stat.rpartition(b")")[2].split()
    return None if fields[_STATE] in (b"Z", b"X") else float(fields[_START])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
