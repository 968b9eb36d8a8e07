"""Laws that every scenario keeps; a new one is one row."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from petra_optuna.inference.call_times import CallTimes
from petra_optuna.inference.scenarios import (
    SCENARIOS,
    MultiStream,
    Offline,
    Policy,
    Scenario,
    Server,
    SingleStream,
    recommend,
)

TIMES = CallTimes(
    {
        batch: [(0.002 + 0.001 * batch) * factor for factor in (0.9, 0.95, 1.0, 1.05, 1.1)]
        for batch in (1, 2, 4, 8)
    }
)
ROWS: tuple[Scenario, ...] = (SingleStream(), Offline(11), Server(11, 0.03), MultiStream(300.0))
every_scenario = pytest.mark.parametrize("scenario", ROWS, ids=lambda row: row.name)
EFFORT = {"repetitions": 4, "samples": 400}


def test_every_scenario_has_a_row_and_a_name_of_its_own() -> None:
    assert {type(row) for row in ROWS} == set(SCENARIOS)
    assert len({row.name for row in SCENARIOS}) == len(SCENARIOS)


@every_scenario
def test_a_simulation_follows_from_its_generator(scenario: Scenario) -> None:
    policies = scenario.policies(TIMES)
    first, second = (scenario.simulate(policies, TIMES, np.random.default_rng(5), **EFFORT) for _ in range(2))
    assert first == second


@every_scenario
def test_no_answer_comes_before_its_call_has_ended(scenario: Scenario) -> None:
    policies = scenario.policies(TIMES)
    assert len(set(policies)) == len(policies)
    for response in scenario.simulate(policies, TIMES, np.random.default_rng(0), **EFFORT):
        assert response.p50_ms.value >= TIMES.quantile(1, 0.0) * 1e3
        assert response.p99_ms.value >= response.p50_ms.value
        assert response.mean_ms.low <= response.mean_ms.value <= response.mean_ms.high
        assert 0 < response.utilisation <= 1 + 1e-9
        assert not response.saturated


@every_scenario
def test_the_recommended_policy_is_no_worse_than_any_of_a_grid(scenario: Scenario) -> None:
    best = recommend(scenario, TIMES, np.random.default_rng(0), **EFFORT)
    batches = range(1, min(TIMES.largest_batch, getattr(scenario, "samples", TIMES.largest_batch)) + 1)
    grid = [Policy(batch, wait_s) for batch in batches for wait_s in (0.0, 0.003, 0.01)]
    responses = scenario.simulate(grid, TIMES, np.random.default_rng(1), repetitions=16, samples=1000)
    (again,) = scenario.simulate([best.policy], TIMES, np.random.default_rng(1), repetitions=16, samples=1000)
    feasible = [scenario.cost(response) for response in responses if not response.saturated]
    assert scenario.cost(again) <= 1.02 * min(feasible)
    assert best.response.throughput_per_s <= 1.02 * best.largest_rate_per_s


@every_scenario
def test_the_throughput_under_overload_is_the_largest_rate(scenario: Scenario) -> None:
    overload = {Server: {"period_s": 1e-4}, MultiStream: {"rate_per_s": 1e5}}.get(type(scenario), {})
    crowded = dataclasses.replace(scenario, **overload)
    policies = [Policy(batch) for batch in range(1, TIMES.largest_batch + 1)]
    responses = crowded.simulate(policies, TIMES, np.random.default_rng(0), **EFFORT)
    most = max(response.throughput_per_s for response in responses)
    assert most == pytest.approx(scenario.largest_rate_per_s(TIMES), rel=0.02)
    assert all(response.saturated == scenario.open_loop for response in responses)
