"""Which policy serves a scenario best."""

from __future__ import annotations

import dataclasses

import numpy as np

from petra_optuna.inference.call_times import CallTimes
from petra_optuna.inference.scenarios.base import Scenario
from petra_optuna.inference.scenarios.policy import Policy
from petra_optuna.inference.scenarios.response import Response

_LOOK = (8, 500)
"""Repetitions, and samples in each, of the looks at many policies."""
_ROUNDS = 2
"""Looks around the best policy so far."""


@dataclasses.dataclass(frozen=True)
class PolicyRecommendation:
    """The best policy of a scenario.

    Attributes:
        policy: Batch size and wait.
        response: Response times under it, from a simulation that did not choose it.
        largest_rate_per_s: Most samples a second that any policy sustains.
    """

    policy: Policy
    response: Response
    largest_rate_per_s: float


def recommend(
    scenario: Scenario,
    times: CallTimes,
    rng: np.random.Generator,
    *,
    repetitions: int = 32,
    samples: int = 3000,
) -> PolicyRecommendation:
    """Search the policy with the least cost: the mean response time, or for ``Offline`` the time of a sample.

    Args:
        scenario: How requests arrive.
        times: Call times by batch size; no batch is larger than the largest measured one.
        rng: Source of all randomness.
        repetitions: Number of runs of the final simulation.
        samples: Number of samples in each of them.

    Raises:
        UserError: When no policy keeps up with the requests.
    """
    scenario.check_feasible(times)
    best: Policy | None = None
    for _ in range(1 + _ROUNDS):
        best = _best(scenario, times, rng, best)
    assert best is not None
    (response,) = scenario.simulate([best], times, rng, repetitions=repetitions, samples=samples)
    return PolicyRecommendation(best, response, scenario.largest_rate_per_s(times))


def _best(scenario: Scenario, times: CallTimes, rng: np.random.Generator, near: Policy | None) -> Policy:
    """The cheapest policy of one look; of equal ones the first, which has the smallest batch."""
    policies = scenario.policies(times, near)
    if len(policies) == 1:
        return policies[0]
    repetitions, samples = _LOOK
    responses = scenario.simulate(policies, times, rng, repetitions=repetitions, samples=samples)
    return policies[int(np.argmin([scenario.cost(response) for response in responses]))]
