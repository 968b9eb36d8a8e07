"""Groups of samples at a fixed period."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from petra_optuna.errors import UserError
from petra_optuna.inference.call_times import CallTimes
from petra_optuna.inference.scenarios.base import Scenario, check_batches, check_count, check_positive
from petra_optuna.inference.scenarios.groups import fastest_batch, mean_seconds, serve_groups
from petra_optuna.inference.scenarios.policy import Policy
from petra_optuna.inference.scenarios.response import Response

_LEAST_GROUPS = 100
"""Fewer groups do not show whether a queue grows."""


@dataclasses.dataclass(frozen=True)
class Server(Scenario):
    """Samples arrive together at a fixed period: into how large calls are they to be split?

    Groups are served in order, and a call holds samples of one group only. The name is EDGETUNE's
    (doi 10.1145/3528535.3533273). MLPerf calls another thing Server: single samples that arrive by a Poisson
    process, which is ``MultiStream`` here.

    Attributes:
        samples: Number of samples that arrive together.
        period_s: Seconds from one arrival to the next.

    Raises:
        UserError: On construction, when one of them is not positive.
    """

    name: ClassVar[str] = "server"
    open_loop: ClassVar[bool] = True
    samples: int
    period_s: float

    def __post_init__(self) -> None:
        """Check both."""
        check_count("samples", self.samples)
        check_positive("period_s", self.period_s)

    def policies(self, times: CallTimes, near: Policy | None = None) -> tuple[Policy, ...]:
        """Every batch size up to the number of samples that keeps up with the period; no second look."""
        if near is not None:
            return (near,)
        batches = range(1, min(self.samples, times.largest_batch) + 1)
        return tuple(Policy(batch) for batch in batches if not self._saturates(batch, times))

    def simulate(
        self,
        policies: Sequence[Policy],
        times: CallTimes,
        rng: np.random.Generator,
        *,
        repetitions: int,
        samples: int,
    ) -> tuple[Response, ...]:
        """Serve as many whole groups as ``samples`` needs, a hundred at least."""
        check_batches(policies, times)
        shape = (repetitions, max(math.ceil(samples / self.samples), _LEAST_GROUPS))
        responses = []
        for policy in policies:
            run = serve_groups(self.samples, self.period_s, policy.batch, times, rng, shape)
            responses.append(self.respond(run, self._saturates(policy.batch, times)))
        return tuple(responses)

    def largest_rate_per_s(self, times: CallTimes) -> float:
        """Samples by the time of the best split."""
        return self.samples / self._least_seconds(times)

    def check_feasible(self, times: CallTimes) -> None:
        """Check that the best split of a group takes less than the period.

        Raises:
            UserError: When it does not; the text has the smallest feasible period.
        """
        least = self._least_seconds(times)
        if least >= self.period_s:
            raise UserError(
                f"saturated: {self.samples} samples every {self.period_s * 1e3:g} ms are more than any batch "
                f"size serves; the smallest feasible period is {least * 1e3:.4g} ms, give a longer period_s"
            )

    def _least_seconds(self, times: CallTimes) -> float:
        return mean_seconds(self.samples, fastest_batch(self.samples, times), times)

    def _saturates(self, batch: int, times: CallTimes) -> bool:
        return mean_seconds(self.samples, batch, times) >= self.period_s
