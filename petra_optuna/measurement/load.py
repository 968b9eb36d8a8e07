"""What else the machine was doing, and how long this process waited for a core because of it."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import IO

import psutil

_READ_BYTES = 128
SCHEDULER = Path("/proc/thread-self/schedstat")
"""Nanoseconds on a core and nanoseconds ready without one, and time slices, of the thread that opens it."""


class CoreWaits:
    """Seconds for which the thread that made this was ready to run and had no core.

    The file stays open, because opening it for each reading takes as long as a small network. Other threads
    of the process do not count, so the waits of a runtime that computes in them are not seen.
    """

    def __init__(self) -> None:
        try:
            self._file: IO[bytes] | None = SCHEDULER.open("rb", buffering=0)
        except OSError:  # only Linux has the file
            self._file = None

    def seconds(self) -> float:
        """Seconds waited so far; 0 where the system does not count them."""
        if self._file is None:
            return 0.0
        return _waited_s(os.pread(self._file.fileno(), _READ_BYTES, 0))


def waited_by(pid: int) -> float:
    """Seconds for which the thread of a process that waited most was ready to run and had no core.

    It is 0 where the system does not count them and for a process that has ended.
    """
    waits = [0.0]
    for file in Path("/proc", str(pid), "task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # the thread has ended
            waits.append(_waited_s(file.read_bytes()))
    return max(waits)


def _waited_s(schedstat: bytes) -> float:
    return int(schedstat.split()[1]) / 1e9


class ForeignLoad:
    """Load of the machine by other processes, from when this was made."""

    def __init__(self) -> None:
        self._began = _Instant()

    def cores(self) -> float:
        """Mean number of cores that other processes kept busy since this was made.

        Time that a hypervisor gave to its other guests counts. The result is 0 where the system's own
        counters, which are coarse, have not moved further than this process's.
        """
        now, began = _Instant(), self._began
        others = (now.busy_s - began.busy_s) - (now.own_s - began.own_s)
        return float(max(0.0, others / max(now.clock_s - began.clock_s, 1e-9)))


class _Instant:
    """Seconds of the clock, of all busy cores and of this process, now."""

    def __init__(self) -> None:
        times = psutil.cpu_times()._asdict()
        self.clock_s = time.perf_counter()
        idle = times["idle"] + times.get("iowait", 0.0)
        # Linux counts guests within user and nice already.
        within = times.get("guest", 0.0) + times.get("guest_nice", 0.0)
        self.busy_s = sum(times.values()) - idle - within
        own = os.times()
        self.own_s = own.user + own.system
