"""Who may become a parent: what the population keeps up to date equals what the whole table gives."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from support.oracles import survivors

from petra_optuna.evolution import Survival, non_dominated, unit_hypervolume
from petra_optuna.samplers.population import Population


def _select(
    points: np.ndarray, size: int, random_count: int = 0, violations: np.ndarray | None = None
) -> tuple[int, ...]:
    none = np.zeros(len(points)) if violations is None else violations
    chosen = _survive(points, none, size, random_count, np.random.default_rng(0))
    oracle = survivors(
        points, points, none, size=size, random_count=random_count, rng=np.random.default_rng(0)
    )
    assert chosen == oracle
    return chosen


def _survive(
    points: np.ndarray,
    violations: np.ndarray,
    size: int,
    random_count: int,
    rng: np.random.Generator,
    survival: Survival = "hypervolume",
) -> tuple[int, ...]:
    """Rows that become parents in a population of trials numbered by row."""
    room = max(size - random_count, 1)
    population = Population(room, points.shape[1])
    keys = [(row, row) for row in range(len(points))]
    population.add_keys(keys)
    for key, point, violation in zip(keys, points, violations, strict=True):
        population.rank(key, point, point, 0.0, {"limit": float(violation)})
    elite = population.elite(room, survival, rng)
    return (*elite, *population.sample_excluding(elite, size - len(elite), rng))


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_kept_while_it_fits(seed: int) -> None:
    points = np.random.default_rng(seed).random((60, 3))
    front = set(non_dominated(points, ["minimize"] * 3))
    chosen = _select(points, len(front) + 8, 8)
    assert front <= set(chosen)
    assert len(set(chosen)) == len(front) + 8


def test_a_front_that_does_not_fit_keeps_most_volume() -> None:
    angles = np.random.default_rng(1).uniform(0, np.pi / 2, 60)
    points = np.column_stack([1 - np.sin(angles), 1 - np.cos(angles)])
    chosen = unit_hypervolume(points[list(_select(points, 8))])
    drawn = [np.random.default_rng(seed).choice(60, 8, replace=False) for seed in range(200)]
    assert chosen > max(unit_hypervolume(points[rows]) for rows in drawn)


def test_the_second_front_follows_the_first() -> None:
    points = np.array([[0.8, 0.8], [0.1, 0.1], [0.5, 0.5], [0.4, 0.6], [0.9, 0.9]])
    assert _select(points, 3) == (1, 2, 3)


def test_infeasible_rows_come_last_by_their_violation() -> None:
    points = np.array([[0.0, 0.0], [0.1, 0.1], [0.5, 0.5], [0.9, 0.9]])
    violations = np.array([2.0, 1.0, 0.0, 0.0])
    assert [_select(points, size, violations=violations) for size in (1, 2, 3, 4)] == [
        (2,),
        (2, 3),
        (2, 3, 1),
        (2, 3, 1, 0),
    ]


def test_some_are_drawn_from_the_rest() -> None:
    points = np.linspace(0, 0.9, 50)[:, None] * np.ones((1, 2))
    rng = np.random.default_rng(3)
    seen = set()
    for _ in range(200):
        chosen = _survive(points, np.zeros(50), 6, 2, rng)
        assert chosen[:4] == (0, 1, 2, 3)
        assert len(set(chosen)) == 6
        seen.update(chosen[4:])
    assert seen == set(range(4, 50))


def test_fewer_rows_than_wanted_are_all_kept() -> None:
    assert set(_select(np.random.default_rng(0).random((3, 2)), 10, 3)) == {0, 1, 2}
    assert _select(np.empty((0, 2)), 10, 3) == ()


@pytest.mark.parametrize("survival", get_args(Survival))
@pytest.mark.parametrize("seed", range(8))
def test_selection_is_that_of_the_whole_table(survival: Survival, seed: int) -> None:
    """Levels, ties, crowds, violations and random parents at once, with the same draws."""
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 6, size=(40, 1 + seed % 3)) / 6
    violations = np.where(rng.random(40) < 0.4, rng.integers(1, 4, size=40), 0).astype(float)
    for size, random_count in ((6, 0), (8, 3), (40, 10), (60, 0)):
        draws, same_draws = (np.random.default_rng(seed) for _ in range(2))
        assert _survive(points, violations, size, random_count, draws, survival) == survivors(
            points,
            points,
            violations,
            size=size,
            random_count=random_count,
            rng=same_draws,
            survival=survival,
        )
