from __future__ import annotations

import itertools

import numpy as np
import pytest

from petra_optuna.aliases import Direction
from petra_optuna.errors import StudyError
from petra_optuna.evolution import (
    Bounds,
    FrontTrace,
    MeasuredPoint,
    contributions,
    hypervolume,
    minimised,
    non_dominated,
    ranks,
    unit_hypervolume,
)

CASES = [(n, m, seed) for n in (1, 2, 7) for m in (1, 2, 3, 4) for seed in range(3)]


def _volume(points: np.ndarray) -> float:
    """Inclusion and exclusion over all subsets of boxes between a point and the reference at 1."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            corner = np.max(chosen, axis=0)
            total += (-1) ** (size + 1) * float(np.prod(np.maximum(1 - corner, 0)))
    return total


@pytest.mark.parametrize(("n", "m", "seed"), CASES)
def test_hypervolume_and_contributions_agree_with_inclusion_and_exclusion(n: int, m: int, seed: int) -> None:
    points = np.random.default_rng(seed).uniform(-1, 1.3, size=(n, m))
    assert unit_hypervolume(points) == pytest.approx(_volume(points))
    front = points[list(non_dominated(points, ["minimize"] * m))]
    left_out = [_volume(front) - _volume(np.delete(front, row, axis=0)) for row in range(len(front))]
    assert contributions(front) == pytest.approx(left_out, abs=1e-9)


@pytest.mark.parametrize(("n", "m", "seed"), CASES)
def test_the_non_dominated_are_those_that_nothing_dominates(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 4, size=(4 * n, m)).astype(float)  # few levels: equal rows and ties
    directions: list[Direction] = ["maximize" if flag else "minimize" for flag in rng.random(m) < 0.5]
    violations = np.where(rng.random(4 * n) < 0.3, 1.0, 0.0)
    signs = np.array([-1 if direction == "maximize" else 1 for direction in directions])

    def beaten(row: int) -> bool:
        others = [values[other] * signs for other in range(len(values)) if violations[other] == 0]
        mine = values[row] * signs
        return any((other <= mine).all() and (other < mine).any() for other in others)

    expected = tuple(row for row in range(len(values)) if violations[row] == 0 and not beaten(row))
    assert non_dominated(values, directions, violations) == expected


def test_a_better_model_dominates() -> None:
    directions: tuple[Direction, ...] = ("maximize", "minimize", "maximize", "minimize")
    original, better = [0.95, 10.0, 100.0, 4e6], [0.96, 9.0, 110.0, 3e6]
    for column in range(4):
        improved = [*original]
        improved[column] = better[column]
        assert non_dominated([original, improved], directions) == (1,)
        first, second = map(MeasuredPoint.exact, minimised([improved, original], directions))
        assert first.dominates(second)
        assert not second.dominates(first)
        bounds = Bounds(tuple(original), (False, True, True, True))
        assert hypervolume([improved], directions, bounds) > hypervolume([original], directions, bounds)
        assert ranks(minimised([original, improved], directions)).tolist() == [1, 0]


def test_the_original_alone_has_volume_one_and_nothing_has_none() -> None:
    directions: tuple[Direction, ...] = ("maximize", "minimize", "maximize")
    bounds = Bounds((0.9, 12.0, 300.0), (False, True, True))
    assert hypervolume([[0.9, 12.0, 300.0]], directions, bounds) == pytest.approx(1)
    assert hypervolume(np.empty((0, 3)), directions, bounds) == 0
    assert hypervolume([[0.8, 1.0, 900.0]], directions, bounds) == 0  # more than a tenth below the original


def test_a_log_scale_counts_ratios() -> None:
    directions: tuple[Direction, ...] = ("minimize", "maximize")
    bounds = Bounds((100.0, 100.0), (True, True))
    units = bounds.unit([[100, 100], [50, 200], [25, 400], [125, 80]], directions)
    assert units[0] == pytest.approx([0, 0])
    assert units[2] == pytest.approx(2 * units[1])
    assert units[1][0] == pytest.approx(units[1][1])
    assert units[3] == pytest.approx([1, 1])


def test_infinite_and_zero_values_have_finite_units() -> None:
    bounds = Bounds((1.0, 1.0), (False, True))
    units = bounds.unit([[np.inf, 0.0], [-np.inf, np.inf]], ["maximize", "minimize"])
    assert np.isfinite(units).all()
    assert units[0, 0] < 0 < units[1, 0]


def test_bounds_are_a_round_trip_and_can_be_derived() -> None:
    bounds = Bounds((0.9, 12.0), (False, True))
    assert Bounds.from_dict(bounds.to_dict()) == bounds
    derived = Bounds.from_values([[0.5, 3.0], [0.7, np.inf], [0.6, 9.0]], ["maximize", "minimize"])
    assert derived == Bounds((0.5, 9.0), (False, False))
    assert Bounds.from_values(np.empty((0, 2)), ["maximize", "minimize"]).reference == (0.0, 0.0)


@pytest.mark.parametrize(
    ("reference", "log"), [((1.0,), (True, True)), ((0.0,), (True,)), ((np.nan,), (False,))]
)
def test_wrong_bounds_are_refused(reference: tuple[float, ...], log: tuple[bool, ...]) -> None:
    with pytest.raises(StudyError, match="bounds need"):
        Bounds(reference, log)


def test_an_unknown_direction_is_refused() -> None:
    with pytest.raises(StudyError, match="'max'"):
        minimised([[1.0]], ["max"])  # type: ignore[list-item]


@pytest.mark.parametrize("seed", range(5))
def test_entering_the_front_means_gaining_volume(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(-4, 8, size=(40, 2)) / 6  # ties, repeats, points on and beyond the reference
    feasible = rng.random(40) < 0.8
    trace = FrontTrace(2)
    inside = feasible & np.all(points < 1, axis=1)
    arrivals = [
        MeasuredPoint.exact(point) if may else None for point, may in zip(points, inside, strict=True)
    ]
    entered = np.array([trace.push(point) for point in arrivals])
    for row in range(40):
        before = unit_hypervolume(points[:row][feasible[:row]])
        after = unit_hypervolume(points[: row + 1][feasible[: row + 1]])
        assert entered[row] == (feasible[row] and after > before + 1e-12)
    assert 0 < entered.sum() < 40
