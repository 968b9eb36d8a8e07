from __future__ import annotations

import pytest

from petra_optuna.nn.schedules import schedule_factor

STEPS = [step / 1000 for step in range(1001)]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_the_peak_is_one_and_no_step_is_negative(schedule: str) -> None:
    factors = [schedule_factor(schedule, step) for step in STEPS]
    assert max(factors) == pytest.approx(1.0)
    assert min(factors) >= 0.0


def test_cosine_falls_from_one_to_zero() -> None:
    factors = [schedule_factor("cosine", step) for step in STEPS]
    assert factors == sorted(factors, reverse=True)
    assert (factors[0], factors[500], factors[-1]) == pytest.approx((1.0, 0.5, 0.0))


def test_one_cycle_rises_for_three_tenths_then_falls_to_zero() -> None:
    factors = [schedule_factor("one_cycle", step) for step in STEPS]
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[:301] == sorted(factors[:301])
    assert factors[300:] == sorted(factors[300:], reverse=True)
    assert (factors[300], factors[-1]) == pytest.approx((1.0, 0.0))


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(ValueError, match="unknown schedule 'linear'"):
        schedule_factor("linear", 0.5)
