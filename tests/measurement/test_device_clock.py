from __future__ import annotations

import itertools

import numpy as np
import pytest

from petra_optuna.measurement.protocol import Schedule, Side, compare, time_alone
from petra_optuna.runtimes.device_clock import DeviceClock

LAUNCH_S = 1e-5


class Device:
    """Works off a queue: a call returns when its work is queued, long before it is done."""

    def __init__(self):
        self.host_s = 0.0
        self.free_s = 0.0  # when the device has done all that is queued

    def net(self, seconds):
        def call():
            self.host_s += LAUNCH_S
            self.free_s = max(self.free_s, self.host_s) + seconds

        return call

    def host_clock(self):
        self.host_s += 1e-7
        return self.host_s

    def event(self):
        """A mark at the end of the queue."""
        self.free_s = max(self.free_s, self.host_s)
        return Mark(self, self.free_s)


class Mark:
    """Refuses what ``torch.cuda.Event`` refuses, and knows times in single precision only."""

    def __init__(self, device, at_s):
        self.device = device
        self.at_s = at_s

    def synchronize(self):
        self.device.host_s = max(self.device.host_s, self.at_s)

    def elapsed_time(self, end):
        if max(self.at_s, end.at_s) > self.device.host_s:
            raise RuntimeError("not ready")
        return float(np.float32(1e3 * (end.at_s - self.at_s)))


def side(device, seconds):
    return Side(itertools.repeat(device.net(seconds)), seconds)


def measured(device, clock):
    schedule = Schedule(min_pairs=6, max_pairs=6)
    return compare(side(device, 0.002), side(device, 0.004), clock, batch=1, threads=1, schedule=schedule)


def test_events_see_the_work_that_the_host_has_only_queued():
    device = Device()
    found = measured(device, DeviceClock(device.event))
    assert found.ratio == pytest.approx(0.5, rel=0.02)
    assert found.candidate_ms == pytest.approx(2, rel=0.02)
    assert time_alone(side(device, 0.003), DeviceClock(device.event)) == pytest.approx(0.003, rel=0.02)


def test_the_host_clock_alone_is_caught_by_the_same_measurement():
    device = Device()
    found = measured(device, device.host_clock)
    assert found.ratio == pytest.approx(1.0, rel=0.02)
    assert found.candidate_ms < 0.1


def test_a_clock_that_does_not_wait_is_refused_by_the_device(monkeypatch):
    device = Device()
    monkeypatch.setattr(Mark, "synchronize", lambda self: None)
    clock = DeviceClock(device.event)
    device.net(0.002)()
    with pytest.raises(RuntimeError, match="not ready"):
        clock()


def test_work_queued_before_the_block_is_not_counted():
    device = Device()
    device.net(5.0)()
    clock = DeviceClock(device.event)
    assert clock() < 1e-3


def test_microseconds_are_told_apart_after_hours():
    device = Device()
    clock = DeviceClock(device.event)
    for _ in range(4):
        device.net(3600.0)()
        clock()
    before = clock()
    device.net(5e-6)()
    assert clock() - before == pytest.approx(5e-6 + LAUNCH_S, rel=0.01)
