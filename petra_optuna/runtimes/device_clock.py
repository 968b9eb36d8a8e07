"""Time on a device that works behind the host's back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Event(Protocol):
    """A mark in a device's queue, as ``torch.cuda.Event(enable_timing=True)`` is one."""

    def record(self) -> None:
        """Put it behind all that is queued."""

    def synchronize(self) -> None:
        """Wait until the device has reached it."""

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds on the device from this one to another; both must have been reached."""


class DeviceClock:
    """Seconds on the device's own clock, counted up to the end of all work that was queued before.

    Each reading records an event and waits for it, so what a call merely queued is inside the time between
    the readings around it. Readings add up the short distances of neighbouring events: a device gives them as
    single-precision milliseconds, which after a minute could no longer tell microseconds apart.

    Args:
        new_event: Makes an event of the device.
    """

    def __init__(self, new_event: Callable[[], Event]) -> None:
        self._new_event = new_event
        self._seconds = 0.0
        self._last = self._reached()

    def __call__(self) -> float:
        """Wait for the device; seconds since the making."""
        event = self._reached()
        self._seconds += self._last.elapsed_time(event) / 1e3
        self._last = event
        return self._seconds

    def _reached(self) -> Event:
        event = self._new_event()
        event.record()
        event.synchronize()
        return event
