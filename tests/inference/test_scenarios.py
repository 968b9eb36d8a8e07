"""Scenarios against queueing theory, exact cases and a simulation without arrays."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from petra_optuna.errors import UserError
from petra_optuna.inference.call_times import CallTimes
from petra_optuna.inference.scenarios import (
    MultiStream,
    Offline,
    Policy,
    Server,
    SingleStream,
    recommend,
    split,
)
from petra_optuna.inference.scenarios.queueing import serve_queue

SHARES = (np.arange(1000) + 0.5) / 1000
SERVICES = {
    "constant": np.array([0.002]),
    "exponential": -0.002 * np.log(1 - SHARES),
    "two speeds": np.array([0.001] * 9 + [0.011]),
}
IRREGULAR = CallTimes({1: [0.003], 2: [0.004], 3: [0.0075], 4: [0.0077], 5: [0.011], 6: [0.0119], 7: [0.012]})


@pytest.mark.parametrize("load", [0.4, 0.8])
@pytest.mark.parametrize("name", SERVICES)
def test_single_samples_wait_as_pollaczek_and_khinchine_say(name: str, load: float) -> None:
    service = SERVICES[name]
    rate = load / service.mean()
    expected_s = service.mean() + rate * (service**2).mean() / (2 * (1 - load))
    (response,) = MultiStream(rate).simulate(
        [Policy(1)], CallTimes({1: list(service)}), np.random.default_rng(0), repetitions=60, samples=4000
    )
    assert response.mean_ms.value == pytest.approx(expected_s * 1e3, rel=0.04)
    assert response.utilisation == pytest.approx(load, rel=0.02)
    assert response.throughput_per_s == pytest.approx(rate, rel=0.02)


def test_an_exponential_server_answers_as_m_m_1_does() -> None:
    service = SERVICES["exponential"]
    rate = 0.6 / service.mean()
    (response,) = MultiStream(rate).simulate(
        [Policy(1)], CallTimes({1: list(service)}), np.random.default_rng(1), repetitions=60, samples=4000
    )
    rest = 1 / service.mean() - rate  # the response time is exponential with this rate
    assert response.mean_ms.value == pytest.approx(1e3 / rest, rel=0.04)
    assert response.p50_ms.value == pytest.approx(1e3 * math.log(2) / rest, rel=0.04)
    assert response.p99_ms.value == pytest.approx(1e3 * math.log(100) / rest, rel=0.06)


@pytest.mark.parametrize("batch", [1, 3, 5])
@pytest.mark.parametrize("wait_s", [0.0, 0.002, 0.05])
def test_the_queue_is_that_of_a_loop_over_single_events(batch: int, wait_s: float) -> None:
    rng = np.random.default_rng(batch)
    arrivals = np.cumsum(rng.exponential(0.002, (3, 200)), axis=1)
    arrivals[0, 10:14] = arrivals[0, 10]  # some arrive together
    others = [Policy(2), Policy(7, 0.01)]  # lanes beside it change nothing
    run = serve_queue(arrivals, [others[0], Policy(batch, wait_s), others[1]], IRREGULAR, rng)[1]
    for row, response, busy_s in zip(arrivals, run.response_s, run.busy_s, strict=True):
        answered, calls = _serve_one_by_one(list(row), batch, wait_s)
        assert response + row == pytest.approx(answered)
        assert busy_s == pytest.approx(sum(IRREGULAR.mean(size) for size in calls))


def _serve_one_by_one(arrivals: list[float], batch: int, wait_s: float) -> tuple[list[float], list[int]]:
    answered: list[float] = []
    calls: list[int] = []
    free = 0.0
    while len(answered) < len(arrivals):
        head = len(answered)
        full = arrivals[head + batch - 1] if head + batch <= len(arrivals) else math.inf
        start = max(free, min(full, arrivals[head] + wait_s))
        size = min(sum(moment <= start for moment in arrivals[head:]), batch)
        free = start + IRREGULAR.mean(size)
        answered += [free] * size
        calls.append(size)
    return answered, calls


@pytest.mark.parametrize(("samples", "batch"), list(itertools.product((1, 5, 7), (1, 2, 3, 5))))
def test_a_group_is_answered_as_its_calls_end(samples: int, batch: int) -> None:
    assert sum(split(samples, batch)) == samples
    assert max(split(samples, batch)) <= batch
    ends = np.cumsum([IRREGULAR.mean(size) for size in split(samples, batch)])
    expected_s = np.repeat(ends, split(samples, batch)).mean()
    for scenario in (Server(samples, 2 * float(ends[-1])), Offline(samples)):
        (response,) = scenario.simulate(
            [Policy(batch)], IRREGULAR, np.random.default_rng(0), repetitions=2, samples=50
        )
        assert response.mean_ms.value == pytest.approx(1e3 * expected_s)
        assert response.mean_ms.high == pytest.approx(response.mean_ms.low)


@pytest.mark.parametrize("samples", range(1, 8))
def test_the_recommended_split_is_the_best_of_all(samples: int) -> None:
    def mean_s(batch: int) -> float:
        sizes = split(samples, batch)
        return float(np.repeat(np.cumsum([IRREGULAR.mean(size) for size in sizes]), sizes).mean())

    best = recommend(Server(samples, 1.0), IRREGULAR, np.random.default_rng(0), repetitions=2, samples=20)
    assert mean_s(best.policy.batch) == pytest.approx(min(map(mean_s, range(1, samples + 1))))
    assert best.response.mean_ms.value == pytest.approx(1e3 * mean_s(best.policy.batch))


def test_responses_grow_with_the_rate() -> None:
    responses = [
        MultiStream(rate).simulate(
            [Policy(7)], IRREGULAR, np.random.default_rng(2), repetitions=16, samples=1500
        )[0]
        for rate in (50, 150, 300, 450)
    ]
    means = [response.mean_ms.value for response in responses]
    assert means == sorted(means)
    assert means[-1] > 1.5 * means[0]


def test_waiting_pays_where_a_call_costs_more_than_its_samples() -> None:
    times = CallTimes({1: [0.01], 8: [0.0104]})
    best = recommend(MultiStream(300), times, np.random.default_rng(0), repetitions=8, samples=1000)
    assert best.policy.batch > 2


def test_a_tail_lengthens_the_99th_percentile_and_leaves_the_median() -> None:
    even, tailed = CallTimes({1: [0.01]}), CallTimes({1: [0.01] * 96 + [0.04] * 4})
    for scenario in (SingleStream(), Server(1, 0.1)):
        short, long = (
            scenario.simulate([Policy(1)], times, np.random.default_rng(0), repetitions=4, samples=1000)[0]
            for times in (even, tailed)
        )
        assert long.p50_ms.value == pytest.approx(short.p50_ms.value)
        assert long.p99_ms.value == pytest.approx(4 * short.p99_ms.value)


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_a_policy_saturates_where_full_calls_are_slower_than_arrivals(batch: int) -> None:
    largest = batch / IRREGULAR.mean(batch)
    for share, expected in ((0.8, False), (1.25, True)):
        (response,) = MultiStream(share * largest).simulate(
            [Policy(batch)], IRREGULAR, np.random.default_rng(0), repetitions=8, samples=2000
        )
        assert response.saturated == expected
        assert response.throughput_per_s == pytest.approx(min(share, 1.0) * largest, rel=0.03)
        gaps = np.random.default_rng(0).exponential(1 / (share * largest), (8, 2000))
        (run,) = serve_queue(np.cumsum(gaps, axis=1), [Policy(batch)], IRREGULAR, np.random.default_rng(0))
        assert run.grows() == expected


def test_the_only_batch_that_sustains_a_rate_is_found() -> None:
    times = CallTimes({1: [0.03], 10: [0.1], 11: [0.05], 12: [0.1], 40: [0.3]})
    best = recommend(MultiStream(200), times, np.random.default_rng(0), repetitions=4, samples=500)
    assert best.policy.batch == 11


def test_too_high_a_rate_is_refused_with_the_largest_one() -> None:
    largest = max(batch / IRREGULAR.mean(batch) for batch in range(1, 8))
    text = f"saturated: 600 samples/s arrive, .* more than {largest:.4g} samples/s; give a lower rate_per_s"
    with pytest.raises(UserError, match=text) as refused:
        recommend(MultiStream(600), IRREGULAR, np.random.default_rng(0))
    assert "\n" not in str(refused.value)
    recommend(MultiStream(0.9 * largest), IRREGULAR, np.random.default_rng(0), repetitions=2, samples=100)


def test_too_short_a_period_is_refused_with_the_smallest_one() -> None:
    with pytest.raises(
        UserError, match=r"7 samples every 11 ms .* smallest feasible period is 12 ms"
    ) as refused:
        recommend(Server(7, 0.011), IRREGULAR, np.random.default_rng(0))
    assert "\n" not in str(refused.value)
    recommend(Server(7, 0.0125), IRREGULAR, np.random.default_rng(0), repetitions=2, samples=100)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Server(0, 1.0), "samples is 0"),
        (lambda: Server(1, 0.0), "period_s is 0.0"),
        (lambda: MultiStream(math.inf), "rate_per_s is inf"),
        (lambda: Offline(-1), "samples is -1"),
        (lambda: Policy(0), "batch is 0"),
        (lambda: Policy(1, -1.0), "wait_s is -1.0"),
        (lambda: Policy(1, math.nan), "wait_s is nan"),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object], text: str) -> None:
    with pytest.raises(UserError, match=text):
        make()


def test_a_batch_without_call_times_is_refused() -> None:
    for scenario in (MultiStream(10.0), Server(20, 1.0), Offline(20)):
        with pytest.raises(UserError, match="batch is 8; call times reach from 1 to 7"):
            scenario.simulate([Policy(8)], IRREGULAR, np.random.default_rng(0), repetitions=1, samples=20)
