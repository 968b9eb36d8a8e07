"""What overlaps is a tie: no dominance, no place on a front, no progress comes from it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from petra_optuna.evolution import FrontTrace, MeasuredPoint, non_dominated, tied_front

VALUES = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12)


def _noisy(values: tuple[float, ...], width: float) -> MeasuredPoint:
    """A point whose last value is known up to ``width``."""
    array = np.array(values, dtype=float)
    slack = np.array([0.0] * (len(values) - 1) + [width])
    return MeasuredPoint(array, array - slack, array + slack)


@given(VALUES)
def test_without_noise_the_front_is_the_non_dominated_set_each_point_once(
    values: list[tuple[int, ...]],
) -> None:
    front = tied_front([MeasuredPoint.exact(point) for point in values])
    expected = non_dominated(values, ("minimize",) * 3)
    assert {values[row] for row in front} == {values[row] for row in expected}
    assert len({values[row] for row in front}) == len(front)
    assert sorted([*front, *(other for tied in front.values() for other in tied)]) == sorted(
        row for row, point in enumerate(values) if point in {values[best] for best in expected}
    )


@given(VALUES, st.floats(0, 2))
def test_no_row_of_a_front_covers_a_later_one_and_each_point_left_out_is_covered(
    values: list[tuple[int, ...]], width: float
) -> None:
    points = [_noisy(point, width) for point in values]
    front = tied_front(points)
    rows = list(front)
    assert rows
    for place, row in enumerate(rows):
        assert not any(points[earlier].covers(points[row]) for earlier in rows[:place])
    for row in set(range(len(points))) - set(rows):
        assert any(points[shown].covers(points[row]) for shown in rows)


def test_the_best_of_a_tie_stands_for_the_others() -> None:
    accuracy = [-0.98, -0.99, -0.99, -0.95]
    latency = [1.00, 1.02, 1.01, 0.50]
    points = [_noisy(pair, 0.05) for pair in zip(accuracy, latency, strict=True)]
    assert tied_front(points) == {2: (0, 1), 3: ()}


def test_dominance_needs_a_value_that_is_clearly_better() -> None:
    first, second = _noisy((1.0, 1.00), 0.05), _noisy((1.0, 1.04), 0.05)
    assert first.covers(second)
    assert second.covers(first)
    assert not first.dominates(second)
    assert _noisy((0.9, 1.04), 0.05).dominates(first)
    assert _noisy((1.0, 0.80), 0.05).dominates(first)
    assert not _noisy((1.1, 0.98), 0.05).dominates(first)


def test_noise_never_enters_a_front_however_often_it_is_tried() -> None:
    rng = np.random.default_rng(0)
    trace = FrontTrace(2)
    assert trace.push(_noisy((1.0, 1.0), 0.06))
    entered = [trace.push(_noisy((1.0, 1.0 + 0.02 * x), 0.06)) for x in rng.standard_normal(200)]
    assert not any(entered)
    assert trace.push(_noisy((1.0, 0.8), 0.06))
    assert trace.push(_noisy((0.9, 1.0), 0.06))
