"""A thread that serves waiting samples by a policy."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

from petra_optuna.inference.scenarios import Policy

Sample = TypeVar("Sample")
"""What stands for a sample: a number, or a load generator's own object."""
Serve = Callable[[int], object]
"""Runs one call of so many samples."""


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of the serving thread.

    Attributes:
        samples: Number of samples.
        seconds: Seconds that the thread was busy with it, telling that the samples are answered included.
    """

    samples: int
    seconds: float


class Serving(Generic[Sample]):
    """A server of one thread, open as long as its context.

    Samples come in units, which are never divided: a unit of one sample may share a call with others, and a
    group that was split beforehand comes as one unit for each call, under a policy of batch 1.

    Args:
        open_session: Called once, in the serving thread; opens the model and returns what runs a call.
        policy: When a call starts, and the most units that it takes.
        answer: Called in the serving thread with the samples of a call that has ended.
        sizes: Sizes of calls that are run once before anything is served: a first call takes longer.
    """

    def __init__(
        self,
        open_session: Callable[[], Serve],
        policy: Policy,
        answer: Callable[[Sequence[Sample]], None],
        sizes: Sequence[int],
    ) -> None:
        self.calls: list[Call] = []
        self._open_session = open_session
        self._policy = policy
        self._answer = answer
        self._sizes = sizes
        self._waiting: deque[tuple[float, Sequence[Sample]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._executor = ThreadPoolExecutor(1)
        self._end: Future[None]

    def __enter__(self) -> Serving[Sample]:
        """Start the thread and wait until it can serve.

        What ``open_session`` or a first call raises is raised here.
        """
        serve = self._executor.submit(self._open).result()
        self._end = self._executor.submit(self._run, serve)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Serve what waits, end the thread, and raise what ended it early."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._executor.shutdown()
        self._end.result()

    def submit(self, units: Sequence[Sequence[Sample]]) -> None:
        """Let units wait for their calls; they arrive now."""
        now = time.perf_counter()
        with self._changed:
            self._waiting.extend((now, unit) for unit in units)
            self._changed.notify()

    def _open(self) -> Serve:
        serve = self._open_session()
        for size in self._sizes:
            serve(size)
        return serve

    def _run(self, serve: Serve) -> None:
        samples: Sequence[Sample] = ()
        try:
            while samples := self._next_call():
                began = time.perf_counter()
                serve(len(samples))
                self._answer(samples)
                self.calls.append(Call(len(samples), time.perf_counter() - began))
        finally:
            # A load generator waits for every answer, so after an error the rest is answered without a call.
            while samples:
                self._answer(samples)
                samples = self._next_call()

    def _next_call(self) -> list[Sample]:
        """Wait for the start of a call and take its samples; none when all is served and closed."""
        with self._changed:
            while not self._closed or self._waiting:
                left = self._seconds_to_start()
                if left is not None and left <= 0:
                    count = min(self._policy.batch, len(self._waiting))
                    return [sample for _ in range(count) for sample in self._waiting.popleft()[1]]
                self._changed.wait(left)
        return []

    def _seconds_to_start(self) -> float | None:
        """Seconds until a call is to start; None while nothing waits."""
        if not self._waiting:
            return None
        if self._closed or len(self._waiting) >= self._policy.batch:
            return 0.0
        return self._waiting[0][0] + self._policy.wait_s - time.perf_counter()
