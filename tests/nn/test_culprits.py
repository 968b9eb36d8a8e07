from __future__ import annotations

from collections.abc import Sequence

import pytest

from petra_optuna.nn.culprits import MOST_TRIES, find_culprits

NAMES = [f"change {number}" for number in range(40)]


@pytest.mark.parametrize("bad", [{0}, {39}, {3, 4}, {0, 7, 20, 39}])
def test_each_change_that_fails_alone_is_found_with_its_own_problem(bad: set[int]) -> None:
    broken = {NAMES[number] for number in bad}

    def problem_of(names: Sequence[str]) -> str | None:
        failing = [name for name in names if name in broken]
        return f"{failing[0]} fails" if failing else None

    culprits = find_culprits(NAMES, "all fail", problem_of)
    assert culprits == {name: f"{name} fails" for name in broken}


def test_of_changes_that_exclude_each_other_one_stays() -> None:
    def problem_of(names: Sequence[str]) -> str | None:
        return "both" if {NAMES[3], NAMES[30]} <= set(names) else None

    culprits = find_culprits(NAMES, "both", problem_of)
    assert len(culprits) == 1
    assert problem_of([name for name in NAMES if name not in culprits]) is None


def test_the_search_ends_and_what_is_left_then_works() -> None:
    tries = []

    def problem_of(names: Sequence[str]) -> str | None:
        tries.append(len(names))
        return "fails" if any(int(name.split()[1]) % 2 for name in names) else None

    many = [f"change {number}" for number in range(1000)]
    culprits = find_culprits(many, "fails", problem_of)
    assert len(tries) == MOST_TRIES
    assert problem_of([name for name in many if name not in culprits]) is None
    assert sum("not tried" in reason for reason in culprits.values()) > 900


def test_a_single_change_needs_no_try() -> None:
    assert find_culprits(["only"], "fails", lambda names: pytest.fail("tried")) == {"only": "fails"}
