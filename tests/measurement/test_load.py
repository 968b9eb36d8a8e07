from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from petra_optuna.measurement.load import SCHEDULER, CoreWaits, ForeignLoad, waited_by


def test_what_others_do_counts_and_what_this_process_does_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    load = _counted(monkeypatch, busy=(100.0, 103.0), own=(10.0, 11.0), clock=(0.0, 2.0))
    assert load == pytest.approx(1.0)  # 3 s busy, of which 1 s here, in 2 s


def test_coarse_counters_never_give_less_than_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _counted(monkeypatch, busy=(100.0, 100.5), own=(10.0, 10.6), clock=(0.0, 0.5)) == 0.0


def test_a_busy_process_is_seen() -> None:
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        load = ForeignLoad()
        time.sleep(1.0)
        assert load.cores() > 0.2
    finally:
        spinner.kill()
        spinner.wait()


@pytest.mark.skipif(not SCHEDULER.exists(), reason="this system does not tell")
def test_a_thread_that_shares_its_core_has_waited_for_it() -> None:
    """Of two that want one core each waits half of the time; of sleeping none waits."""
    mine = os.sched_getaffinity(0)
    core = {max(mine)}
    waits = CoreWaits()
    began = waits.seconds()
    time.sleep(0.3)
    assert waits.seconds() - began < 0.1
    os.sched_setaffinity(0, core)
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])  # inherits the core
    try:
        began, until = waits.seconds(), time.perf_counter() + 1.0
        while time.perf_counter() < until:
            pass
        assert waits.seconds() - began > 0.2
        assert waited_by(os.getpid()) > 0.2  # as another process sees it
        assert waited_by(spinner.pid) > 0.2
    finally:
        os.sched_setaffinity(0, mine)
        spinner.kill()
        spinner.wait()


def test_a_system_that_does_not_tell_has_no_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("petra_optuna.measurement.load.SCHEDULER", tmp_path / "none")
    assert CoreWaits().seconds() == 0.0


def test_a_process_that_has_ended_does_not_wait() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert waited_by(ended.pid) == 0.0


def _counted(
    monkeypatch: pytest.MonkeyPatch,
    *,
    busy: tuple[float, float],
    own: tuple[float, float],
    clock: tuple[float, float],
) -> float:
    class Times:
        def __init__(self, user: float) -> None:
            self.user = user

        def _asdict(self) -> dict[str, float]:
            return {"user": self.user - 1.0, "steal": 1.0, "idle": 5.0, "iowait": 7.0, "guest": 0.0}

    busy_s, own_s, clock_s = iter(busy), iter(own), iter(clock)
    monkeypatch.setattr(psutil, "cpu_times", lambda: Times(next(busy_s)))
    monkeypatch.setattr(os, "times", lambda: os.times_result((next(own_s), 0.0, 0.0, 0.0, 0.0)))
    monkeypatch.setattr(time, "perf_counter", clock_s.__next__)
    return ForeignLoad().cores()
