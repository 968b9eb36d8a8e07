"""Time on a device that works while the host goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Event(Protocol):
    """A mark in a device's queue, such as ``torch.cuda.Event(enable_timing=True)``."""

    def synchronize(self) -> None:
        """Wait until the device has reached the mark."""

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds on the device from this mark to another; both must have been reached."""


class DeviceClock:
    """A clock in seconds on the device, read at the end of all work that was queued before.

    Each reading puts an event into the queue and waits for it, so work that a call only queued lies between
    the readings around the call. The short times between neighbouring events are summed: a device gives
    them as single-precision milliseconds, which after a minute could no longer tell microseconds apart.

    Args:
        queue_event: Puts a new event at the end of the device's queue.
    """

    def __init__(self, queue_event: Callable[[], Event]) -> None:
        self._queue_event = queue_event
        self._seconds = 0.0
        self._last = self._next_event()

    def __call__(self) -> float:
        """Wait for the device and return the seconds since the clock was made."""
        event = self._next_event()
        self._seconds += self._last.elapsed_time(event) / 1e3
        self._last = event
        return self._seconds

    def _next_event(self) -> Event:
        """A new event that the device has reached."""
        event = self._queue_event()
        event.synchronize()
        return event
