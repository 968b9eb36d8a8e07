from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from petra_optuna.measurement.interval import _means_outside, ratio_interval
from petra_optuna.measurement.protocol import Schedule

ratios = st.lists(st.floats(0.01, 100), min_size=4, max_size=30).filter(lambda items: len(items) % 2 == 0)


@given(ratios)
def test_swapping_the_sides_inverts_the_ratio_and_its_interval(values: list[float]) -> None:
    ratio, low, high = ratio_interval(values)
    swapped, swapped_low, swapped_high = ratio_interval([1 / value for value in values])
    assert (swapped, swapped_low, swapped_high) == pytest.approx((1 / ratio, 1 / high, 1 / low))
    assert low <= ratio * (1 + 1e-9)
    assert ratio <= high * (1 + 1e-9)


@given(st.floats(0.05, 20), st.floats(0.8, 1.2), st.integers(2, 15))
def test_an_advantage_of_going_first_cancels(ratio: float, advantage: float, count: int) -> None:
    found = ratio_interval([ratio * advantage, ratio / advantage] * count)
    assert found == pytest.approx((ratio, ratio, ratio))


def test_wild_ratios_move_neither_centre_nor_interval_far() -> None:
    quiet = np.exp(np.random.default_rng(0).normal(0, 0.01, 30))
    wild = quiet.copy()
    wild[[3, 8, 21]] *= 3
    for before, after in zip(ratio_interval(quiet), ratio_interval(wild), strict=True):
        assert after == pytest.approx(before, rel=0.01)


@pytest.mark.parametrize("count", [12, 14])
def test_the_ranks_are_those_of_the_signed_rank_test(count: int) -> None:
    """Every set of signs is as likely; the sum of the ranks of the positive ones is the statistic."""
    sums = [sum(chosen) for chosen in itertools.product(*[(0, rank) for rank in range(1, count + 1)])]
    outside = _means_outside(count)
    assert np.mean(np.array(sums) <= outside) <= 0.015
    assert np.mean(np.array(sums) <= outside + 1) > 0.015


@pytest.mark.parametrize("count", [4, 6, 8, 10])
def test_few_ratios_have_the_interval_of_student(count: int) -> None:
    logs = np.random.default_rng(count).normal(0, 0.02, count)
    ratio, low, high = ratio_interval(np.exp(logs))
    residuals = logs.reshape(-1, 2) - logs.reshape(-1, 2).mean(axis=0)
    error = np.sqrt((residuals**2).sum() / (count - 2) / count)
    half = stats.t.ppf(0.975, count - 2) * error
    assert (np.log(high / ratio), np.log(ratio / low)) == pytest.approx((half, half), rel=1e-3)


@pytest.mark.parametrize("bias", [0.0, 0.03])
@pytest.mark.parametrize("count", [4, 6, 10, 12, 20, 30])
@pytest.mark.parametrize("tails", ["normal", "heavy"])
def test_the_interval_covers_the_true_ratio_in_nineteen_of_twenty_runs(
    count: int, bias: float, tails: str
) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        logs = rng.standard_normal(count) if tails == "normal" else rng.standard_t(3, count)
        logs = 0.05 * logs + bias * (-1.0) ** np.arange(count)
        _, low, high = ratio_interval(np.exp(logs))
        covered += low <= 1.0 <= high
    assert 0.935 <= covered / 1000 < 1.0


@pytest.mark.parametrize("deviation", [0.01, 0.03])
def test_stopping_at_a_narrow_interval_costs_little_of_the_coverage(deviation: float) -> None:
    schedule, rng = Schedule(), np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        drawn = np.exp(rng.standard_normal(schedule.max_pairs) * deviation)
        for count in range(schedule.min_pairs, schedule.max_pairs + 1, 2):
            ratio, low, high = ratio_interval(drawn[:count])
            if high - low <= schedule.tolerance * ratio:
                break
        covered += low <= 1.0 <= high
    assert covered / 1000 >= 0.935
