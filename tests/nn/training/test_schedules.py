from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.optim import lr_scheduler

from petra_optuna.nn.training.schedules import WARM_UP_SHARE, schedule_factor

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


TOTAL = 40


def _rates(make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]) -> list[float]:
    """What a scheduler of torch sets over ``TOTAL`` steps from a peak of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(TOTAL):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_is_that_of_torch() -> None:
    expected = _rates(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, TOTAL))
    assert [schedule_factor("cosine", step / TOTAL) for step in range(TOTAL)] == pytest.approx(expected)


def test_one_cycle_is_that_of_torch() -> None:
    """Torch's peak is a step before its share of the steps, and its end is its last step: both are met."""
    peak = (WARM_UP_SHARE * TOTAL + 1) / (TOTAL + 1)

    def make(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=1.0,
            total_steps=TOTAL + 1,
            pct_start=peak,
            final_div_factor=1e12,
            cycle_momentum=False,
        )

    assert [schedule_factor("one_cycle", step / TOTAL) for step in range(TOTAL)] == pytest.approx(
        _rates(make)
    )
