"""A limit on the seconds that a search through a model may take.

Searches end by counts of steps, which are the same on every machine. The seconds bound what one step may
cost on a slow machine or a large model. They never decide what a search finds: past them it fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from petra_optuna.errors import OperationFailed

Clock = Callable[[], float]

_limit: ContextVar[tuple[float, float, Clock] | None] = ContextVar("limit", default=None)


@contextmanager
def time_limit(seconds: float, clock: Clock = time.monotonic) -> Iterator[None]:
    """Let ``check_time`` fail inside the block once this many seconds have passed.

    Args:
        seconds: Most seconds.
        clock: Seconds from any beginning.
    """
    token = _limit.set((clock() + seconds, seconds, clock))
    try:
        yield
    finally:
        _limit.reset(token)


def check_time() -> None:
    """Do nothing within the limit of seconds; every step of a search calls this.

    Raises:
        OperationFailed: When the time is up.
    """
    limit = _limit.get()
    if limit is not None and limit[2]() > limit[0]:
        raise OperationFailed(f"its search was not done after {limit[1]:g} s, the limit of a structural node")
