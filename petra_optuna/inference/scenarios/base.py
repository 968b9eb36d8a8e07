"""What every scenario can do."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from petra_optuna.errors import UserError
from petra_optuna.inference.call_times import CallTimes
from petra_optuna.inference.scenarios.policy import Policy
from petra_optuna.inference.scenarios.response import Response, Run

_WARM_UP = 0.1
"""Share of the requests of an open loop that does not count: the first ones meet no queue."""


class Scenario(abc.ABC):
    """How requests arrive at one server that answers call after call. A subclass is a frozen dataclass.

    Attributes:
        name: Short name, shown and stored.
        open_loop: Whether requests keep coming without regard to answers, so that a queue can grow.
    """

    name: ClassVar[str]
    open_loop: ClassVar[bool] = False

    @abc.abstractmethod
    def policies(self, times: CallTimes, near: Policy | None = None) -> tuple[Policy, ...]:
        """Policies worth trying, by batch size, then by wait.

        Args:
            times: Call times by batch size; the largest one bounds the batch.
            near: A good policy, to look around it; None for a first look at all.
        """

    @abc.abstractmethod
    def simulate(
        self,
        policies: Sequence[Policy],
        times: CallTimes,
        rng: np.random.Generator,
        *,
        repetitions: int,
        samples: int,
    ) -> tuple[Response, ...]:
        """Simulate the scenario, event by event, under each policy. All policies meet the same arrivals.

        Args:
            policies: Policies to compare.
            times: Call times by batch size, drawn from independently for each call.
            rng: Source of all randomness.
            repetitions: Number of independent runs, from which the errors come.
            samples: Least number of samples that arrive in each run.

        Returns:
            The response times under each policy, in order.

        Raises:
            UserError: When a policy's batch is larger than the largest measured one.
        """

    @abc.abstractmethod
    def largest_rate_per_s(self, times: CallTimes) -> float:
        """Most samples a second that the best policy sustains."""

    @abc.abstractmethod
    def check_feasible(self, times: CallTimes) -> None:
        """Check that some policy keeps up with the requests.

        Raises:
            UserError: When none does; the text says what the limit is.
        """

    def cost(self, response: Response) -> float:
        """What the best policy has least of: the mean response time in milliseconds."""
        return response.mean_ms.value

    def respond(self, run: Run, saturates: bool = False, blocks: int = 1) -> Response:
        """The response times of a run as a record.

        Args:
            run: What happened.
            saturates: Whether the policy cannot keep up with the requests. A queue that grew says so too.
            blocks: Number of blocks of each repetition, as in ``Run.summary``.
        """
        if not self.open_loop:
            return run.summary(saturated=False, blocks=blocks)
        return run.summary(saturates or run.grows(), _WARM_UP, blocks)


def check_count(name: str, value: int) -> None:
    """Check a number of samples.

    Raises:
        UserError: When it is no whole number from 1.
    """
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{name} is {value!r}; give a whole number from 1")


def check_positive(name: str, value: float) -> None:
    """Check a rate or a length of time.

    Raises:
        UserError: When it is not positive and finite.
    """
    if not 0 < value < math.inf:
        raise UserError(f"{name} is {value!r}; give a positive number")


def check_batches(policies: Sequence[Policy], times: CallTimes) -> None:
    """Check that the largest batch of the policies has call times.

    Raises:
        UserError: When it is larger than the largest measured one.
    """
    times.mean(max(policy.batch for policy in policies))
