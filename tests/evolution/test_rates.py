from __future__ import annotations

from collections import Counter
from typing import get_args

import numpy as np
import pytest

from petra_optuna.errors import UserError
from petra_optuna.evolution import OperatorRates, RatesMode

NAMES = ("good", "bad", "new")
HISTORY = (("good", 1.0), ("bad", 0.0)) * 20
MODES = pytest.mark.parametrize("mode", get_args(RatesMode))


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


@MODES
@pytest.mark.parametrize("floor", [0.0, 0.3, 1.0])
def test_probabilities_sum_to_one_and_respect_the_floor(mode: RatesMode, floor: float) -> None:
    rates = OperatorRates(NAMES, HISTORY, mode, floor=floor)
    probabilities = rates.probabilities(_rng())
    assert tuple(probabilities) == NAMES
    assert sum(probabilities.values()) == pytest.approx(1)
    assert min(probabilities.values()) >= floor / 3 - 1e-12


def test_uniform_ignores_the_history() -> None:
    probabilities = OperatorRates(NAMES, HISTORY, "uniform").probabilities(_rng())
    assert list(probabilities.values()) == pytest.approx([1 / 3] * 3)


def test_matching_is_proportional_to_the_mean_credit() -> None:
    history = (("good", 1.0), ("good", 0.5), ("bad", 0.0))
    probabilities = OperatorRates(NAMES, history, "matching", floor=0.0).probabilities(_rng())
    means = np.array([2.5 / 4, 1 / 3, 1 / 2])
    assert list(probabilities.values()) == pytest.approx(means / means.sum())


@pytest.mark.parametrize("mode", ["matching", "thompson"])
def test_success_is_tried_more_often(mode: RatesMode) -> None:
    rates, rng = OperatorRates(NAMES, HISTORY, mode), _rng()
    drawn = Counter(rates.choose(rng) for _ in range(600))
    assert drawn["good"] > drawn["new"] > drawn["bad"] > 0


def test_what_is_older_than_the_window_is_forgotten() -> None:
    old = (("bad", 1.0),) * 100
    recent = (("good", 1.0), ("bad", 0.0), ("good", 0.5))
    forgetful = OperatorRates(NAMES, old + recent, window=3)
    assert forgetful == OperatorRates(NAMES, recent, window=3)
    assert forgetful.probabilities(_rng()) != OperatorRates(NAMES, old + recent).probabilities(_rng())


@MODES
def test_without_a_history_all_are_alike(mode: RatesMode) -> None:
    rates, rng = OperatorRates(NAMES, mode=mode), _rng()
    drawn = Counter(rates.choose(rng) for _ in range(3000))
    assert min(drawn.values()) > 850


@pytest.mark.parametrize("wrong", [{"mode": "greedy"}, {"floor": 1.1}, {"floor": -0.1}, {"window": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match="got"):
        OperatorRates(NAMES, **wrong)  # type: ignore[arg-type]


@MODES
def test_what_is_expected_is_what_is_drawn_on_average(mode: RatesMode) -> None:
    history = (("good", 1.0), ("good", 0.5), ("bad", 0.0), ("bad", 1.0), ("bad", 0.0))
    rates, rng = OperatorRates(NAMES, history, mode), _rng()
    drawn = Counter(rates.choose(rng) for _ in range(4000))
    expected = rates.expected()
    assert sum(expected.values()) == pytest.approx(1)
    for name in NAMES:
        # Four standard errors of a share of 4,000 draws.
        assert drawn[name] / 4000 == pytest.approx(expected[name], abs=4 * 0.5 / 4000**0.5)
