"""Seconds of a piece of work by phase."""

from __future__ import annotations

import time
from collections.abc import Callable


class Stopwatch:
    """Divides the time from its making on into phases.

    Args:
        clock: Gives a time in seconds; another one only in tests.

    Attributes:
        seconds: Seconds of each phase so far.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._began = clock()

    def lap(self, phase: str) -> None:
        """Count the time since the last call, or since the beginning, for this phase."""
        now = self._clock()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._began
        self._began = now
