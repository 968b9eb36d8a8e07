"""How waiting samples become calls."""

from __future__ import annotations

import dataclasses
import math

from petra_optuna.errors import UserError


@dataclasses.dataclass(frozen=True)
class Policy:
    """When a call starts and how many samples it takes.

    A call starts when the server is free and either ``batch`` samples wait or the oldest one has waited
    ``wait_s``. It takes all that wait, ``batch`` at most.

    Attributes:
        batch: Most samples of a call.
        wait_s: Longest time in seconds that a free server waits for more samples; 0 for none.

    Raises:
        UserError: On construction, when the batch is no whole number from 1, or the time is negative or
            infinite.
    """

    batch: int
    wait_s: float = 0.0

    def __post_init__(self) -> None:
        """Check both."""
        if not isinstance(self.batch, int) or self.batch < 1:
            raise UserError(f"batch is {self.batch!r}; give a whole number from 1")
        if not 0 <= self.wait_s < math.inf:
            raise UserError(f"wait_s is {self.wait_s!r}; give a number of seconds from 0")
