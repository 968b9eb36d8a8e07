"""What is kept up to date equals what is computed from the whole table by brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from petra_optuna.evolution import (
    FrontTrace,
    MeasuredPoint,
    Skyband,
    fill_by_rank,
    hypervolume_subset,
    sample_excluding,
    total_violations,
)
from petra_optuna.evolution.front import unit_hypervolume

LEVELS = st.integers(0, 5)


def _tables(most: int = 40) -> st.SearchStrategy[np.ndarray]:
    """Few levels: equal rows, ties and long chains."""
    rows = st.integers(1, 3).flatmap(
        lambda m: st.lists(st.lists(LEVELS, min_size=m, max_size=m), min_size=1, max_size=most)
    )
    return rows.map(lambda table: np.array(table, dtype=float))


def _dominates(first: np.ndarray, second: np.ndarray) -> bool:
    return bool((first <= second).all() and (first < second).any())


def _rank(points: np.ndarray) -> list[int]:
    """Peeling: what nothing dominates has rank 0; without it, what nothing dominates has rank 1; ..."""
    rank, left, level = [-1] * len(points), list(range(len(points))), 0
    while left:
        front = [row for row in left if not any(_dominates(points[other], points[row]) for other in left)]
        for row in front:
            rank[row] = level
        left = [row for row in left if row not in front]
        level += 1
    return rank


@given(_tables(), st.integers(1, 12))
def test_levels_are_those_of_peeling_off_fronts(points: np.ndarray, size: int) -> None:
    rank = _rank(points)
    ranked = fill_by_rank(points, size)
    by_level = sorted(range(len(points)), key=lambda row: (rank[row], row))
    assert list(ranked.kept) == by_level[: len(ranked.kept)]
    assert len(ranked.kept) + ranked.room == size
    assert not ranked.split_front or len(ranked.split_front) > ranked.room
    if ranked.split_front:
        level = rank[ranked.split_front[0]]
        assert ranked.split_front == tuple(row for row in by_level if rank[row] == level)
    else:
        assert len(ranked.kept) == min(size, len(points))


@given(_tables(), st.integers(1, 12), st.randoms(use_true_random=False))
def test_the_band_knows_the_best_by_rank_in_any_order_of_arrival(
    points: np.ndarray, depth: int, random: object
) -> None:
    order = list(range(len(points)))
    random.shuffle(order)  # type: ignore[attr-defined]
    band: Skyband[int] = Skyband(depth, points.shape[1])
    for row in order:
        before = list(band.keys)
        assert band.add(row, points[row]) == (band.keys != before)
    fewer = [
        row for row in range(len(points)) if sum(_dominates(each, points[row]) for each in points) < depth
    ]
    assert sorted(band.keys) == fewer
    places = np.argsort(band.keys)
    assert (band.points[places] == points[fewer]).all()
    exact, ours = fill_by_rank(points, depth), fill_by_rank(band.points[places], depth)
    assert tuple(fewer[row] for row in ours.kept) == exact.kept
    assert tuple(fewer[row] for row in ours.split_front) == exact.split_front


@given(_tables(), st.data())
def test_arrivals_can_be_taken_back(points: np.ndarray, data: st.DataObject) -> None:
    """Where a point arrives late, all after it are taken back; the front is then as if it came in time."""
    may = data.draw(st.lists(st.booleans(), min_size=len(points), max_size=len(points)))
    back = data.draw(st.integers(0, len(points)))
    arrivals = [MeasuredPoint.exact(point) if each else None for point, each in zip(points, may, strict=True)]
    straight, detour = FrontTrace(points.shape[1]), FrontTrace(points.shape[1])
    entered = [straight.push(each) for each in arrivals]
    for row, point in enumerate(points):
        before = [points[other] for other in range(row) if may[other]]
        expected = may[row] and not any((other <= point).all() for other in before)
        assert entered[row] == expected
    for each in arrivals[::-1]:
        detour.push(each)
    while len(detour):
        detour.pop()
    assert [detour.push(each) for each in arrivals] == entered
    assert [detour.pop() for _ in range(back)] == entered[len(points) - back :][::-1]
    assert [detour.push(each) for each in arrivals[len(points) - back :]] == entered[len(points) - back :]
    assert (straight.front == detour.front).all()


def test_what_is_kept_of_a_crowd_dominates_nearly_as_much_as_the_best_subset() -> None:
    rng = np.random.default_rng(0)
    for objectives, size in ((2, 4), (3, 4), (4, 4)):
        points = np.abs(rng.standard_normal((14, objectives)))
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        drawn = [rng.choice(14, size, replace=False) for _ in range(600)]
        best = max(unit_hypervolume(points[rows]) for rows in drawn)
        assert unit_hypervolume(points[list(hypervolume_subset(points, size))]) > 0.97 * best


def test_large_crowds_in_many_objectives_are_thinned_out_without_much_loss() -> None:
    rng = np.random.default_rng(1)
    points = np.abs(rng.standard_normal((300, 4)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    chosen = unit_hypervolume(points[list(hypervolume_subset(points, 12))])
    random = [unit_hypervolume(points[rng.choice(300, 12, replace=False)]) for _ in range(200)]
    assert chosen > 1.1 * max(random)


@given(st.sets(st.integers(0, 30)), st.integers(0, 40), st.integers(0, 9))
def test_what_is_excluded_is_never_drawn(excluded: set[int], more: int, seed: int) -> None:
    rows = max(excluded, default=-1) + 1 + more
    sample = sample_excluding(sorted(excluded), rows, 5, np.random.default_rng(seed))
    assert len(set(sample)) == min(5, rows - len(excluded))
    assert not set(sample) & excluded
    assert all(0 <= row < rows for row in sample)


def test_violations_compare_in_multiples_of_what_is_usual() -> None:
    """Accuracy is violated by hundredths and bytes by millions; neither may drown the other."""
    excesses = {
        "accuracy": np.array([0.01, 0.02, -0.5, 0.04, 0.0]),
        "bytes": np.array([-9e9, 1e6, 3e6, np.inf, 0.0]),
        "never": np.array([-1.0, -1.0, -1.0, 0.0, 0.0]),
    }
    total = total_violations(excesses, np.array([0.0, 0.0, 0.0, 0.0, 0.25]))
    assert total.tolist() == [0.5, 1 + 1 / 3, 1.0, 3.0, 0.25]
    assert total_violations({"only": np.array([np.inf, 0.0])}, np.zeros(2)).tolist() == [1.0, 0.0]
    assert total_violations({}, np.empty(0)).shape == (0,)
