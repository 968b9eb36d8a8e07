"""Replays: samples that arrive at a model that runs, and what the policy makes of them."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections import Counter
from collections.abc import Callable

import pytest

from petra_optuna.errors import RuntimeFailed, UserError
from petra_optuna.inference.replay import measure_call_times, replay
from petra_optuna.inference.scenarios import MultiStream, Offline, Policy, Scenario, Server, SingleStream
from petra_optuna.inference.serving import Serving

CALL_S = 0.004
needs_load_generator = pytest.mark.skipif(
    importlib.util.find_spec("mlperf_loadgen") is None, reason="mlcommons-loadgen is not installed"
)


class Model:
    """Takes a fixed time for each call and notes its size; can fail at one call."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.sizes: list[int] = []
        self._fails_at = fails_at

    def open(self) -> Callable[[int], None]:
        return self._serve

    def _serve(self, size: int) -> None:
        if len(self.sizes) == self._fails_at:
            raise RuntimeFailed("out of memory")
        self.sizes.append(size)
        time.sleep(CALL_S)

    def served(self, policy: Policy) -> list[int]:
        """Sizes of calls after the first ones, which run each size once."""
        return self.sizes[policy.batch :]


@needs_load_generator
@pytest.mark.parametrize(
    "scenario", [SingleStream(), Offline(50), MultiStream(400.0)], ids=lambda scenario: scenario.name
)
def test_every_sample_is_answered_once_and_not_before_its_call(scenario: Scenario) -> None:
    model, policy = Model(), Policy(3)
    replayed = replay(model.open, scenario, policy, duration_s=0.3, seed=1)
    response, calls = replayed.response, model.served(policy)
    assert {size: len(seconds) for size, seconds in replayed.times.seconds.items()} == Counter(calls)
    assert max(calls) <= policy.batch
    assert 0.8 * sum(calls) <= response.served <= sum(calls)  # the beginning and the rest of the blocks
    assert response.p50_ms.value >= CALL_S * 1e3
    assert response.p99_ms.value >= response.p50_ms.value
    assert response.throughput_per_s <= policy.batch / CALL_S
    assert 0 < response.utilisation <= 1
    if isinstance(scenario, Offline):
        assert calls == [3] * 16 + [2]


@needs_load_generator
def test_the_seed_decides_how_many_samples_arrive() -> None:
    def count(seed: int) -> int:
        model = Model()
        replay(model.open, MultiStream(200.0), Policy(4), duration_s=0.3, seed=seed)
        return sum(model.served(Policy(4)))

    assert count(1) == count(1)
    assert len({count(seed) for seed in (2, 3, 4)}) > 1


@needs_load_generator
def test_a_server_that_waits_fills_its_calls() -> None:
    model, policy = Model(), Policy(4, wait_s=1.0)
    replay(model.open, MultiStream(200.0), policy, duration_s=0.3, seed=1)
    assert set(model.served(policy)[:-1]) == {4}


@needs_load_generator
def test_more_samples_than_it_serves_saturate_a_server() -> None:
    model = Model()
    response = replay(model.open, MultiStream(3 / CALL_S), Policy(1), duration_s=0.3, seed=1).response
    assert response.saturated
    assert response.throughput_per_s <= 1 / CALL_S


def test_groups_are_split_and_never_share_a_call() -> None:
    model, scenario = Model(), Server(7, 2.5 * CALL_S)  # three calls take longer than the period
    response = replay(model.open, scenario, Policy(3), duration_s=0.1, seed=0).response
    assert model.sizes[:2] == [1, 3]  # the sizes that occur run once before
    assert model.sizes[2:] == [3, 3, 1] * 10
    assert response.saturated


@pytest.mark.parametrize("call", [2, 5])
def test_a_call_that_fails_ends_the_replay_with_its_error(call: int) -> None:
    with pytest.raises(RuntimeFailed, match="out of memory"):
        replay(Model(fails_at=call).open, Server(4, 0.02), Policy(2), duration_s=0.2, seed=0)


@needs_load_generator
@pytest.mark.parametrize("call", [0, 4])
def test_a_load_generator_is_not_left_waiting_for_answers(call: int) -> None:
    with pytest.raises(RuntimeFailed, match="out of memory"):
        replay(Model(fails_at=call).open, MultiStream(200.0), Policy(2), duration_s=0.2, seed=0)


def test_call_times_are_those_of_each_size() -> None:
    model = Model()
    times = measure_call_times(model.open, [1, 4], calls=5)
    assert model.sizes == [1, 4] * 6
    assert {size: len(seconds) for size, seconds in times.seconds.items()} == {1: 5, 4: 5}
    assert times.quantile(1, 0.0) >= CALL_S


def test_units_are_not_divided_and_answered_in_order() -> None:
    answered: list[list[str]] = []
    model = Model()
    with Serving(model.open, Policy(2), lambda samples: answered.append(list(samples)), []) as serving:
        serving.submit([["a", "b"], ["c"], ["d", "e", "f"]])
    assert answered == [["a", "b", "c"], ["d", "e", "f"]]
    assert [call.samples for call in serving.calls] == [3, 3]


def test_a_missing_load_generator_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(UserError, match=r"^[^\n]*; pip install petra-optuna\[loadgen\]$"):
        replay(Model().open, SingleStream(), Policy(1), duration_s=0.1, seed=0)
    replay(Model().open, Server(1, 0.02), Policy(1), duration_s=0.05, seed=0)  # needs none


def test_a_duration_is_positive() -> None:
    with pytest.raises(UserError, match="duration_s is 0"):
        replay(Model().open, SingleStream(), Policy(1), duration_s=0, seed=0)
