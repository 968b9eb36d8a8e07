"""Scenarios in real time: requests that arrive at a model that runs, for comparison with the simulation.

MLCommons' load generator issues the requests and times the answers. It has no fixed period (its schedules are
Poisson, all at once, and one after the answer of another), so the groups of ``Server`` are issued here, by a
clock, and timed from the moment at which they were due, as the load generator does.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from petra_optuna.aliases import Array
from petra_optuna.errors import UserError
from petra_optuna.inference.call_times import CallTimes
from petra_optuna.inference.loadgen import LoadGenerator
from petra_optuna.inference.scenarios import (
    MultiStream,
    Offline,
    Policy,
    Response,
    Run,
    Scenario,
    Server,
    SingleStream,
    split,
)
from petra_optuna.inference.scenarios.base import check_positive
from petra_optuna.inference.serving import Call, Serve, Serving

BLOCKS = 10
"""Number of blocks of a run that stand for repetitions when errors are estimated."""
_SOON_S = 0.02
"""Seconds until the first group."""

OpenSession = Callable[[], Serve]
"""Opens a model in the thread that calls it (where the thread may pin itself to a core) and returns what runs
a call of so many samples."""


@dataclasses.dataclass(frozen=True)
class Replay:
    """What happened in one replay.

    Attributes:
        response: Response times. Their errors come from blocks of consecutive requests, which depend on each
            other when the server is busy, so that they are too small then. ``Offline`` has no errors.
        times: How long the calls took. A simulation with these shows what else differs from it.
    """

    response: Response
    times: CallTimes


@dataclasses.dataclass(frozen=True)
class _Replayed:
    """Requests and calls of one replay.

    Attributes:
        arrivals_s: Second of each sample's arrival, from the first one on, shape (samples,).
        latencies_s: Seconds from there to its answer, shape (samples,).
        calls: Calls of the serving thread.
    """

    arrivals_s: Array
    latencies_s: Array
    calls: Sequence[Call]

    def run(self) -> Run:
        """One repetition."""
        busy_s = sum(call.seconds for call in self.calls)
        span_s = (self.arrivals_s + self.latencies_s).max()
        return Run(self.latencies_s[None], busy_s=np.array([busy_s]), span_s=np.array([span_s]))


def replay(
    open_session: OpenSession, scenario: Scenario, policy: Policy, *, duration_s: float, seed: int
) -> Replay:
    """Let the requests of a scenario arrive at a model, and serve them by a policy.

    Args:
        open_session: Opens the model; called in the serving thread.
        scenario: How requests arrive.
        policy: How they become calls, by the rules of the simulation.
        duration_s: Seconds for which requests arrive; ``Offline`` ends with its samples.
        seed: Seed of the arrivals.

    Raises:
        UserError: When the load generator is not installed, or the duration is not positive.
    """
    check_positive("duration_s", duration_s)
    if isinstance(scenario, Server):
        replayed = _by_clock(open_session, scenario, policy, duration_s)
    else:
        replayed = _by_load_generator(open_session, scenario, policy, duration_s, seed)
    response = scenario.respond(replayed.run(), blocks=1 if isinstance(scenario, Offline) else BLOCKS)
    return Replay(response, _call_times(replayed.calls))


def measure_call_times(open_session: OpenSession, batches: Sequence[int], calls: int) -> CallTimes:
    """Seconds of calls in the thread that serves a replay, one after the other, all sizes in turn.

    Args:
        open_session: Opens the model; called in the serving thread.
        batches: Batch sizes to measure.
        calls: Number of calls of each size.

    Raises:
        UserError: When there is no batch or no call.
    """
    serving: Serving[int] = Serving(open_session, Policy(1), _ignore, batches)
    with serving:
        serving.submit([range(batch) for _ in range(calls) for batch in batches])
    return _call_times(serving.calls)


def _call_times(calls: Sequence[Call]) -> CallTimes:
    seconds: dict[int, list[float]] = {}
    for call in calls:
        seconds.setdefault(call.samples, []).append(call.seconds)
    return CallTimes(seconds)


def _by_load_generator(
    open_session: OpenSession, scenario: Scenario, policy: Policy, duration_s: float, seed: int
) -> _Replayed:
    generator = LoadGenerator()
    sizes = range(1, policy.batch + 1)
    with Serving(open_session, policy, generator.answer, sizes) as serving:

        def issue(samples: Sequence[object]) -> None:
            serving.submit([[sample] for sample in samples])

        match scenario:
            case MultiStream(rate_per_s=rate):
                times = generator.run("Server", issue, duration_s=duration_s, rate_per_s=rate, seed=seed)
            case Offline(samples=count):
                times = generator.run("Offline", issue, samples=count)
            case SingleStream():
                times = generator.run("SingleStream", issue, duration_s=duration_s)
            case _:
                raise UserError(
                    f"scenario {scenario.name!r} cannot be replayed; give one of the built-in ones"
                )
    return _Replayed(*times, serving.calls)


def _by_clock(open_session: OpenSession, scenario: Server, policy: Policy, duration_s: float) -> _Replayed:
    """Issue groups at a fixed period; each is split beforehand, and its calls are served in order."""
    answered: list[float] = []

    def answer(samples: Sequence[float]) -> None:
        now = time.perf_counter()
        answered.extend(now - due for due in samples)

    sizes = split(scenario.samples, policy.batch)
    groups = max(math.ceil(duration_s / scenario.period_s), 1)
    with Serving(open_session, Policy(1), answer, sorted(set(sizes))) as serving:
        begin = time.perf_counter() + _SOON_S
        for group in range(groups):
            due = begin + group * scenario.period_s
            time.sleep(max(due - time.perf_counter(), 0.0))
            serving.submit([[due] * size for size in sizes])
    arrivals = np.repeat(np.arange(groups) * scenario.period_s, scenario.samples)
    return _Replayed(arrivals, np.array(answered), serving.calls)


def _ignore(samples: Sequence[int]) -> None:
    """Nobody waits for these samples."""
