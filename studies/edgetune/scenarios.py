"""Print response times of two scenarios as simulated from call times and as replayed, and saturation rates.

    python -m studies.edgetune.scenarios
    python -m studies.edgetune.scenarios --seeds 0 1 2 --seconds 30

A recurrent network in ONNX Runtime on one thread serves the requests; its calls gain by larger batches. Call
times are measured in the thread that serves the replays, which keeps to one core. At several loads, as shares
of the largest rate, the recommended policy is replayed in rounds: single samples (``multi_stream``) by
MLCommons' load generator, groups (``server``) by a clock. Call times are measured before the first round and
after each one, and what is simulated for a round draws from the calls on both sides of it, since a shared
machine changes its speed within minutes. "Of its calls" is the same simulation with the times of the replay's
own calls, which leaves only the queue to be compared. A row has the means over its rounds. Errors are those
of the simulation, in percent of what was replayed. Rounds that offer 1.3 times the largest rate find the rate
that the model sustains. The machine has to be idle, with two cores or more.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from petra_optuna.deploy import lower
from petra_optuna.inference.call_times import CallTimes
from petra_optuna.inference.replay import OpenSession, Replay, measure_call_times, replay
from petra_optuna.inference.scenarios import MultiStream, Policy, Response, Scenario, Server, recommend
from petra_optuna.inference.serving import Serve
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.nn.randomness import seeded
from petra_optuna.runtimes import runtime
from studies import script

WIDTH, LENGTH, HIDDEN, CLASSES = 32, 96, 384, 10
BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
GROUP = 20
LOADS = (0.3, 0.6, 0.85)
OVERLOAD = 1.3
SIMULATIONS = 32
"""Simulated runs for each replay."""


class Recurrent(nn.Module):
    """A GRU over series (B, LENGTH, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(WIDTH, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, series: Tensor) -> Tensor:
        """Map (B, LENGTH, WIDTH) to logits (B, CLASSES)."""
        states: Tensor = self.recurrent(series)[0]
        logits: Tensor = self.head(states[:, -1])
        return logits


def main() -> None:
    """Print a table of call times, one of response times and one of rates."""
    parser = script.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of arrivals and simulation")
    parser.add_argument("--rounds", type=int, default=3, help="replays of each row")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each replay")
    parser.add_argument("--calls", type=int, default=50, help="calls of each batch size at each measuring")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        session = _session(Path(folder, "model.onnx"))
        times = measure_call_times(session, BATCHES, arguments.calls)
        script.print_table(
            ("batch", "mean, ms", "median, ms", "99 %, ms", "samples/s"),
            [[batch, *_call_cells(times, batch)] for batch in BATCHES],
        )
        print()
        script.print_table(
            (
                *("seed", "scenario", "load, %", "batch", "wait, ms"),
                *(
                    f"{column}{unit}"
                    for column in ("mean", "99 %")
                    for unit in (", ms", " simulated, ms", ", error, %", " of its calls, ms", ", error, %")
                ),
            ),
            _responses(session, arguments),
        )
        print()
        script.print_table(
            ("seed", "scenario", "batch", "rate, predicted, samples/s", "rate, found, samples/s", "error, %"),
            _rates(session, arguments),
        )


def _session(path: Path) -> OpenSession:
    """Open the model where it serves: that thread keeps to the last core, all others to the rest."""
    with seeded(0):
        model = Recurrent().eval()
        samples = (torch.randn(max(BATCHES), LENGTH, WIDTH),)
    lower(model, samples, path)
    (name, array), *_ = to_feeds(samples).items()
    feeds = {size: {name: np.ascontiguousarray(array[:size])} for size in range(1, max(BATCHES) + 1)}
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:-1] or cores)

    def open_session() -> Serve:
        os.sched_setaffinity(0, cores[-1:])
        session = runtime().open(path, threads=1)
        return lambda size: session.run(feeds[size])

    return open_session


def _call_cells(times: CallTimes, batch: int) -> list[str]:
    seconds = (times.mean(batch), times.quantile(batch, 0.5), times.quantile(batch, 0.99))
    return [*(f"{1e3 * value:.3f}" for value in seconds), f"{batch / seconds[0]:.1f}"]


def _single(times: CallTimes, load: float) -> MultiStream:
    """Single samples at a share of the largest rate."""
    return MultiStream(load * MultiStream(1.0).largest_rate_per_s(times))


def _groups(times: CallTimes, load: float) -> Server:
    """Groups at a share of the largest rate."""
    return Server(GROUP, GROUP / (load * Server(GROUP, 1.0).largest_rate_per_s(times)))


KINDS: tuple[Callable[[CallTimes, float], MultiStream | Server], ...] = (_single, _groups)


def _responses(session: OpenSession, arguments: argparse.Namespace) -> Iterator[list[object]]:
    for seed, load in itertools.product(arguments.seeds, LOADS):
        for kind in KINDS:
            times = measure_call_times(session, BATCHES, arguments.calls)
            scenario = kind(times, load)
            policy = recommend(scenario, times, np.random.default_rng(seed)).policy
            samples = round(load * scenario.largest_rate_per_s(times) * arguments.seconds)
            replayed, simulated, of_its_calls = [], [], []
            for one, around in _rounds(session, scenario, policy, times, seed, arguments):
                replayed.append(one.response)
                simulated += _simulated(scenario, policy, around, samples, seed)
                of_its_calls += _simulated(scenario, policy, one.times, samples, seed)
            yield [
                *(seed, scenario.name, f"{100 * load:.0f}", policy.batch, f"{1e3 * policy.wait_s:.2f}"),
                *_compared_responses(_mean_ms, replayed, simulated, of_its_calls),
                *_compared_responses(_p99_ms, replayed, simulated, of_its_calls),
            ]


def _rates(session: OpenSession, arguments: argparse.Namespace) -> Iterator[list[object]]:
    for seed in arguments.seeds:
        for kind, most in zip(KINDS, (max(BATCHES), GROUP), strict=True):
            times = measure_call_times(session, BATCHES, arguments.calls)
            scenario = kind(times, OVERLOAD)
            policy = _fastest(scenario, times, most, seed)
            rounds = list(_rounds(session, scenario, policy, times, seed, arguments))
            yield [
                *(seed, scenario.name, policy.batch),
                *_compared(
                    [scenario.largest_rate_per_s(around) for _, around in rounds],
                    [one.response.throughput_per_s for one, _ in rounds],
                ),
            ]


def _rounds(
    session: OpenSession,
    scenario: Scenario,
    policy: Policy,
    before: CallTimes,
    seed: int,
    arguments: argparse.Namespace,
) -> Iterator[tuple[Replay, CallTimes]]:
    """Each replay, and the call times around it."""
    for number in range(arguments.rounds):
        replayed = replay(
            session, scenario, policy, duration_s=arguments.seconds, seed=seed * arguments.rounds + number
        )
        after = measure_call_times(session, BATCHES, arguments.calls)
        yield replayed, _joined(before, after)
        before = after


def _simulated(
    scenario: Scenario, policy: Policy, times: CallTimes, samples: int, seed: int
) -> list[Response]:
    """Simulated runs, each as long as a replay; no call is larger than the largest that has a time."""
    policy = Policy(min(policy.batch, times.largest_batch), policy.wait_s)
    rng = np.random.default_rng(seed)
    return [
        scenario.simulate([policy], times, rng, repetitions=1, samples=samples)[0] for _ in range(SIMULATIONS)
    ]


def _joined(first: CallTimes, second: CallTimes) -> CallTimes:
    """The calls of both."""
    return CallTimes({batch: (*calls, *second.seconds[batch]) for batch, calls in first.seconds.items()})


def _fastest(scenario: Scenario, times: CallTimes, most: int, seed: int) -> Policy:
    """The policy with the highest throughput under overload, of calls up to ``most`` samples."""
    policies = [Policy(batch) for batch in range(1, most + 1)]
    responses = scenario.simulate(policies, times, np.random.default_rng(seed), repetitions=4, samples=2000)
    return policies[int(np.argmax([response.throughput_per_s for response in responses]))]


def _mean_ms(response: Response) -> float:
    return response.mean_ms.value


def _p99_ms(response: Response) -> float:
    return response.p99_ms.value


def _compared_responses(
    value: Callable[[Response], float],
    replayed: Sequence[Response],
    simulated: Sequence[Response],
    of_its_calls: Sequence[Response],
) -> list[str]:
    """What was replayed, simulated and simulated of its calls, each simulation with its error."""
    measured, *others = (list(map(value, part)) for part in (replayed, simulated, of_its_calls))
    (expected, found, error), (again, _, rest) = (_compared(part, measured) for part in others)
    return [found, expected, error, again, rest]


def _compared(simulated: Sequence[float], measured: Sequence[float]) -> list[str]:
    expected, found = np.mean(simulated), np.mean(measured)
    return [f"{expected:.4g}", f"{found:.4g}", f"{100 * abs(expected - found) / found:.1f}"]


if __name__ == "__main__":
    script.run(main)
