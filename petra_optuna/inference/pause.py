"""Lets a measurement run while the work of another thread stands still."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Pause:
    """One thread works, another one asks it to stand still for a moment.

    The working thread marks its work by ``working`` and calls ``step`` often; ``quiet`` begins once it stands
    at a step, or does not work at all.

    Args:
        longest_wait_s: Seconds after which ``quiet`` begins although the work has not come to a step.
    """

    def __init__(self, longest_wait_s: float = 120.0) -> None:
        self._longest_wait_s = longest_wait_s
        self._state = threading.Condition()
        self._works = self._asked = self._stands = False

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """The work of this thread; not to be nested."""
        with self._state:
            self._state.wait_for(lambda: not self._asked)
            self._works = True
        try:
            yield
        finally:
            with self._state:
                self._works = False
                self._state.notify_all()

    def step(self) -> None:
        """Stand still while another thread asks for it."""
        if not self._asked:
            return
        with self._state:
            self._stands = True
            self._state.notify_all()
            try:
                self._state.wait_for(lambda: not self._asked)
            finally:
                self._stands = False

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """The block in which the work stands still."""
        with self._state:
            self._asked = True
            self._state.wait_for(lambda: not self._works or self._stands, self._longest_wait_s)
        try:
            yield
        finally:
            with self._state:
                self._asked = False
                self._state.notify_all()
