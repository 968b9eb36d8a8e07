"""Call times by batch size: what is interpolated, what is drawn, what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from petra_optuna.errors import UserError
from petra_optuna.inference.call_times import CallTimes

SECONDS = st.lists(st.floats(1e-6, 10.0), min_size=1, max_size=9)
TIMES = st.dictionaries(st.integers(1, 40), SECONDS, min_size=1, max_size=5).map(CallTimes)


@given(TIMES)
def test_the_stored_form_gives_the_same_times(times: CallTimes) -> None:
    assert CallTimes.from_dict(json.loads(json.dumps(times.to_dict()))) == times


@given(TIMES, st.floats(0, 1))
def test_a_batch_between_two_measured_ones_lies_linearly_between_their_quantiles(
    times: CallTimes, share: float
) -> None:
    for batch in range(1, times.largest_batch + 1):
        below = max((size for size in times.seconds if size <= batch), default=min(times.seconds))
        above = min(size for size in times.seconds if size >= batch)
        weight = (batch - below) / (above - below) if above > below else 0.0
        ends = [
            row[min(int(share * len(row)), len(row) - 1)]
            for row in (times.seconds[below], times.seconds[above])
        ]
        assert times.quantile(batch, share) == pytest.approx((1 - weight) * ends[0] + weight * ends[1])


@given(TIMES)
def test_draws_have_the_mean_and_stay_within_the_measured_range(times: CallTimes) -> None:
    count = 2000
    for batch in (1, times.largest_batch):
        drawn = times.at(np.full(count, batch), (np.arange(count) + 0.5) / count)
        ends = times.quantile(batch, 0.0), times.quantile(batch, 1.0)
        assert ends[0] <= drawn.min()
        assert drawn.max() <= ends[1]
        assert drawn.mean() == pytest.approx(times.mean(batch), rel=0, abs=10 / count * max(ends[1], 1e-9))


def test_draws_follow_from_the_generator_and_are_measured_times() -> None:
    times = CallTimes({1: [1.0, 2.0, 4.0], 3: [5.0]})
    first, second = (times.draws(1, 50, np.random.default_rng(3)) for _ in range(2))
    assert (first == second).all()
    assert set(first) == {1.0, 2.0, 4.0}
    assert times.draw(3, np.random.default_rng(0)) == 5.0


def test_a_batch_below_the_smallest_measured_one_takes_its_time() -> None:
    assert CallTimes({4: [2.0], 8: [3.0]}).mean(1) == 2.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        ({}, "no batch size"),
        ({0: [1.0]}, "batch size 0"),
        ({1: []}, "batch 1 hold no call"),
        ({1: [1.0], 2: [-1.0]}, "batch 2 is -1 s"),
        ({1: [math.inf]}, "batch 1 is inf s"),
        ({1: [math.nan]}, "batch 1 is nan s"),
    ],
)
def test_what_is_no_measurement_is_refused_in_one_line(
    seconds: Mapping[int, Sequence[float]], text: str
) -> None:
    with pytest.raises(UserError, match=text) as refused:
        CallTimes(seconds)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("batch", [0, 9])
def test_nothing_is_extrapolated(batch: int) -> None:
    times = CallTimes({1: [1.0], 8: [2.0]})
    for ask in (times.mean, lambda size: times.draws(size, 1, np.random.default_rng(0))):
        with pytest.raises(UserError, match=f"batch is {batch}; call times reach from 1 to 8"):
            ask(batch)
