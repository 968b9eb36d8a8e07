"""Pooling of readings: laws that any weighted mean keeps, and what the errors promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from petra_optuna.noise import BETWEEN_READINGS, Reading, pooled

READINGS = st.lists(st.builds(Reading, st.floats(0.1, 10), st.floats(1e-4, 0.3)), min_size=1, max_size=6)


@given(READINGS)
def test_a_pool_lies_among_its_readings_whatever_their_order(readings: list[Reading]) -> None:
    pool = pooled(readings)
    values = [reading.value for reading in readings]
    assert min(values) * (1 - 1e-9) <= pool.value <= max(values) * (1 + 1e-9)
    again = pooled(readings[::-1])
    assert again.value == pytest.approx(pool.value)
    assert again.error == pytest.approx(pool.error)


@given(READINGS, st.floats(0.1, 10))
def test_a_pool_has_the_unit_of_its_readings(readings: list[Reading], scale: float) -> None:
    scaled = pooled([Reading(scale * reading.value, reading.error) for reading in readings])
    assert scaled.value == pytest.approx(scale * pooled(readings).value)
    assert scaled.error == pytest.approx(pooled(readings).error, rel=1e-6)


@given(st.builds(Reading, st.floats(0.1, 10), st.floats(1e-4, 0.3)))
def test_one_reading_is_never_known_better_than_readings_repeat(reading: Reading) -> None:
    pool = pooled([reading])
    assert pool.value == pytest.approx(reading.value)
    assert pool.error >= max(reading.error, BETWEEN_READINGS)


def test_the_reading_with_the_narrow_interval_counts_most() -> None:
    wide, narrow = Reading(1.2, 0.2), Reading(1.0, 0.01)
    assert pooled([wide, narrow]).value == pytest.approx(1.0, abs=0.01)


def test_readings_that_contradict_each_other_make_a_wide_interval() -> None:
    contradicting = pooled([Reading(1.0, 0.001), Reading(1.3, 0.001)])
    assert contradicting.low < 1.01
    assert contradicting.high > 1.29
    assert pooled([Reading(1.0, 0.001), Reading(1.001, 0.001)]).uncertainty < 0.02


def test_the_interval_of_a_pool_holds_the_true_value() -> None:
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(500):
        errors = rng.uniform(0.005, 0.03, size=3)
        logs = BETWEEN_READINGS * rng.standard_normal(3) + errors * rng.standard_normal(3)
        pool = pooled([Reading(math.exp(x), error) for x, error in zip(logs, errors, strict=True)])
        inside.append(pool.low <= 1.0 <= pool.high)
    assert np.mean(inside) >= 0.94


def test_an_interval_becomes_an_error_and_back() -> None:
    reading = Reading.of_interval(2.0, 1.9, 2.1)
    assert math.log(reading.high / reading.low) == pytest.approx(math.log(2.1 / 1.9))
    assert Reading(3.0).low == Reading(3.0).high == 3.0
