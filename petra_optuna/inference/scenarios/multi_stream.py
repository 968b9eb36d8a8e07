"""Single samples that arrive at random."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from petra_optuna.errors import UserError
from petra_optuna.inference.call_times import CallTimes
from petra_optuna.inference.scenarios.base import Scenario, check_batches, check_positive
from petra_optuna.inference.scenarios.policy import Policy
from petra_optuna.inference.scenarios.queueing import serve_queue
from petra_optuna.inference.scenarios.response import Response

_GROWTH = 1.25
"""Factor between two batch sizes of the first look."""
_FILLED = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Waits of the first look, as shares of the time in which as many samples as fill a batch arrive."""
_NEAR = (0.85, 1.0, 1.18)
"""Factors of batch size and wait around a good policy."""


@dataclasses.dataclass(frozen=True)
class MultiStream(Scenario):
    """Single samples arrive by a Poisson process: how long is a server to wait, for how many of them?

    The name is EDGETUNE's (doi 10.1145/3528535.3533273). MLPerf calls this Server, and calls MultiStream a
    client that sends a fixed number of samples with each query.

    Attributes:
        rate_per_s: Mean number of samples that arrive in a second.

    Raises:
        UserError: On construction, when the rate is not positive.
    """

    name: ClassVar[str] = "multi_stream"
    open_loop: ClassVar[bool] = True
    rate_per_s: float

    def __post_init__(self) -> None:
        """Check the rate."""
        check_positive("rate_per_s", self.rate_per_s)

    def policies(self, times: CallTimes, near: Policy | None = None) -> tuple[Policy, ...]:
        """Policies that sustain the rate: batch sizes in steps of a quarter, or three around ``near``."""
        if near is None:
            batches = sorted({*_steps(times.largest_batch), self._fastest_batch(times)})
            waits: tuple[float, ...] = ()
        else:
            factors = sorted(
                {round(near.batch * factor) for factor in _NEAR} | {near.batch - 1, near.batch + 1}
            )
            batches = [batch for batch in factors if 1 <= batch <= times.largest_batch]
            waits = tuple(near.wait_s * factor for factor in _NEAR)
        tried = {
            Policy(batch, wait_s)
            for batch in batches
            for wait_s in waits or (share * (batch - 1) / self.rate_per_s for share in _FILLED)
            if not self._saturates(batch, times)
        }
        return tuple(sorted(tried, key=lambda policy: (policy.batch, policy.wait_s)))

    def simulate(
        self,
        policies: Sequence[Policy],
        times: CallTimes,
        rng: np.random.Generator,
        *,
        repetitions: int,
        samples: int,
    ) -> tuple[Response, ...]:
        """Serve a queue that begins empty."""
        check_batches(policies, times)
        gaps = rng.exponential(1 / self.rate_per_s, (repetitions, samples))
        runs = serve_queue(np.cumsum(gaps, axis=1), policies, times, rng)
        return tuple(
            self.respond(run, self._saturates(policy.batch, times))
            for policy, run in zip(policies, runs, strict=True)
        )

    def largest_rate_per_s(self, times: CallTimes) -> float:
        """Samples by the time of a full call, at the best batch size."""
        batch = self._fastest_batch(times)
        return batch / times.mean(batch)

    def check_feasible(self, times: CallTimes) -> None:
        """Check that some batch size sustains the rate.

        Raises:
            UserError: When none does; the text has the largest rate that one sustains.
        """
        largest = self.largest_rate_per_s(times)
        if self.rate_per_s >= largest:
            raise UserError(
                f"saturated: {self.rate_per_s:g} samples/s arrive, and no batch size sustains more than "
                f"{largest:.4g} samples/s; give a lower rate_per_s"
            )

    def _fastest_batch(self, times: CallTimes) -> int:
        return 1 + int(np.argmax(np.arange(1, times.largest_batch + 1) / times.means))

    def _saturates(self, batch: int, times: CallTimes) -> bool:
        return self.rate_per_s * times.mean(batch) >= batch


def _steps(largest: int) -> list[int]:
    """Batch sizes 1, 2, 3, ... that grow by a factor, up to the largest."""
    sizes = [1]
    while sizes[-1] < largest:
        sizes.append(min(max(sizes[-1] + 1, round(sizes[-1] * _GROWTH)), largest))
    return sizes
