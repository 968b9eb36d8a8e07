"""The command that replays a recorded search."""

from __future__ import annotations

from studies.benchmarks.evaluation import best_by_level


def test_the_best_of_a_size_is_the_best_of_all_that_are_no_larger() -> None:
    files = [(0.9, 1.0, 1.0, 500.0), (0.8, 1.0, 1.0, 200.0), (0.7, 1.0, 1.0, 100.0)]
    assert best_by_level(files, 1000) == [0.8, 0.7, None]
