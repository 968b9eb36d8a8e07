"""A file that is open in a runtime, and as many copies of its session as measuring it needs."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from petra_optuna.measurement.protocol import Call, Side
from petra_optuna.runtimes import Session, runtime

Feeds = Mapping[str, np.ndarray]
_SHORT_CALL_S = 0.002
"""Calls longer than this do not depend on where their session lies in memory."""
_COPIES_BYTES = 80_000_000
_COPIES_S = 1.0
"""Most memory and seconds that the copies of one side may take."""
_TRIES = 5


@dataclasses.dataclass(frozen=True)
class OpenFile:
    """A file at one batch size.

    Attributes:
        open: Opens one more session.
        feeds: Inputs of one batch.
        session: The first session.
        call_s: Seconds of the shortest of its first calls.
        copies: Odd number of sessions that a measurement takes in turn. It is 1 where calls are long, the
            file or its outputs large, or opening takes long.
    """

    open: Callable[[], Session]
    feeds: Feeds
    session: Session
    call_s: float
    copies: int

    @classmethod
    def load(
        cls, path: Path, feeds: Feeds, threads: int, place: tuple[str, str], most_copies: int
    ) -> OpenFile:
        """Open a file and call it a few times.

        Args:
            path: Path of the file.
            feeds: Inputs of one batch.
            threads: Threads of a session.
            place: Runtime and device.
            most_copies: Largest number of copies.

        Raises:
            RuntimeFailed: When the runtime cannot load the file or run it.
        """
        name, device = place
        open_session = functools.partial(runtime(name).open, path, threads, device)
        began = time.perf_counter()
        session = open_session()
        open_s = time.perf_counter() - began
        output_bytes = sum(output.nbytes for output in session.run(feeds))
        call_s = _call_seconds(functools.partial(session.run, feeds))
        copies = 1
        if call_s <= _SHORT_CALL_S:
            by_memory = _COPIES_BYTES // (path.stat().st_size + output_bytes)
            by_time = int(_COPIES_S / max(open_s, 1e-6))
            copies = max(1, (min(most_copies, by_memory, by_time) - 1) // 2 * 2 + 1)
        return cls(open_session, feeds, session, call_s, copies)

    def call(self) -> object:
        """Run one batch in the first session."""
        return self.session.run(self.feeds)

    def side(self) -> Side:
        """One side of a measurement, of new sessions where there are copies."""
        return Side(itertools.repeat(self.call) if self.copies == 1 else self._new_copies(), self.call_s)

    def _new_copies(self) -> Iterator[Call]:
        """Each copy is opened when its turn comes first."""
        opened: list[Call] = []
        while len(opened) < self.copies:
            opened.append(functools.partial(self.open().run, self.feeds))
            yield opened[-1]
        yield from itertools.cycle(opened)


def _call_seconds(call: Call) -> float:
    """Least seconds of up to five calls, of one where it is long: one call may have been interrupted."""
    least = float("inf")
    for _ in range(_TRIES):
        began = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - began)
        if least > _SHORT_CALL_S * 10:
            break
    return least
