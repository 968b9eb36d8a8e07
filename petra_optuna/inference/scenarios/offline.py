"""All samples at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from petra_optuna.inference.call_times import CallTimes
from petra_optuna.inference.scenarios.base import Scenario, check_batches, check_count
from petra_optuna.inference.scenarios.groups import fastest_batch, mean_seconds, serve_groups
from petra_optuna.inference.scenarios.policy import Policy
from petra_optuna.inference.scenarios.response import Response


@dataclasses.dataclass(frozen=True)
class Offline(Scenario):
    """All samples are there at the beginning, as in MLPerf's Offline; the best policy has most throughput.

    Attributes:
        samples: Number of samples.

    Raises:
        UserError: On construction, when there is none.
    """

    name: ClassVar[str] = "offline"
    samples: int

    def __post_init__(self) -> None:
        """Check the number."""
        check_count("samples", self.samples)

    def policies(self, times: CallTimes, near: Policy | None = None) -> tuple[Policy, ...]:
        """Every batch size up to the number of samples; no second look."""
        if near is not None:
            return (near,)
        return tuple(Policy(batch) for batch in range(1, min(self.samples, times.largest_batch) + 1))

    def simulate(
        self,
        policies: Sequence[Policy],
        times: CallTimes,
        rng: np.random.Generator,
        *,
        repetitions: int,
        samples: int,
    ) -> tuple[Response, ...]:
        """Serve all samples again and again, until each repetition has served ``samples``."""
        check_batches(policies, times)
        shape = (repetitions * math.ceil(samples / self.samples), 1)
        runs = (serve_groups(self.samples, 0.0, policy.batch, times, rng, shape) for policy in policies)
        return tuple(self.respond(run) for run in runs)

    def largest_rate_per_s(self, times: CallTimes) -> float:
        """Samples by the time of the best split."""
        return self.samples / mean_seconds(self.samples, fastest_batch(self.samples, times), times)

    def check_feasible(self, times: CallTimes) -> None:
        """Nothing to check: no more samples come."""

    def cost(self, response: Response) -> float:
        """Time of a sample: the inverse of the throughput."""
        return 1 / response.throughput_per_s
