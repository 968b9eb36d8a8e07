"""What else the machine was doing."""

from __future__ import annotations

import os
import time

import psutil


class ForeignLoad:
    """Counts from its making on."""

    def __init__(self) -> None:
        self._began = _Instant()

    def cores(self) -> float:
        """How many cores were busy with other things than this process, in the mean since the making.

        What a hypervisor gave to its other guests counts. 0 where the system's own counters, which are
        coarse, have not moved further than this process's.
        """
        now, began = _Instant(), self._began
        others = (now.busy_s - began.busy_s) - (now.own_s - began.own_s)
        return float(max(0.0, others / max(now.clock_s - began.clock_s, 1e-9)))


class _Instant:
    def __init__(self) -> None:
        times = psutil.cpu_times()._asdict()
        self.clock_s = time.perf_counter()
        idle = times["idle"] + times.get("iowait", 0.0)
        # Linux counts guests within user and nice already.
        within = times.get("guest", 0.0) + times.get("guest_nice", 0.0)
        self.busy_s = sum(times.values()) - idle - within
        own = os.times()
        self.own_s = own.user + own.system
