"""One client that asks again as soon as it has its answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from petra_optuna.inference.call_times import CallTimes
from petra_optuna.inference.scenarios.base import Scenario
from petra_optuna.inference.scenarios.policy import Policy
from petra_optuna.inference.scenarios.response import Response, Run


@dataclasses.dataclass(frozen=True)
class SingleStream(Scenario):
    """One sample at a time; the next request comes when the former is answered, as MLPerf's SingleStream."""

    name: ClassVar[str] = "single_stream"

    def policies(self, times: CallTimes, near: Policy | None = None) -> tuple[Policy, ...]:
        """Batch 1: nothing else ever waits."""
        return (Policy(1),)

    def simulate(
        self,
        policies: Sequence[Policy],
        times: CallTimes,
        rng: np.random.Generator,
        *,
        repetitions: int,
        samples: int,
    ) -> tuple[Response, ...]:
        """Draw calls of one sample; the policy makes no difference."""
        seconds = times.draws(1, repetitions * samples, rng).reshape(repetitions, samples)
        total = seconds.sum(axis=1)
        response = self.respond(Run(seconds, busy_s=total, span_s=total))
        return (response,) * len(policies)

    def largest_rate_per_s(self, times: CallTimes) -> float:
        """One call after the other."""
        return 1 / times.mean(1)

    def check_feasible(self, times: CallTimes) -> None:
        """Nothing to check: requests wait for answers."""
