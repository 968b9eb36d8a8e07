"""Budgets are those of Algorithm 2, and what a trial trains between rungs adds up to them."""

from __future__ import annotations

import itertools

import pytest

from petra_optuna.edgetune import TuningBudget
from petra_optuna.errors import UserError
from petra_optuna.evaluation import Budget

BUDGETS = [
    TuningBudget(kind, epochs, most, fraction, factor)
    for kind in ("multi", "epoch", "data")
    for epochs, most in ((2, 10), (1, 1), (3, 10), (1, 27))
    for fraction in (0.1, 0.3, 1.0)
    for factor in (2, 3)
]


def work(budget: Budget) -> float:
    return budget.epochs * budget.data_fraction


def segments(budget: TuningBudget) -> list[Budget]:
    return [budget.segment(before, now) for before, now in itertools.pairwise((None, *budget.rungs))]


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_the_segments_of_a_trial_cover_every_rungs_work_and_little_more(budget: TuningBudget) -> None:
    done = 0.0
    for rung, segment in zip(budget.rungs, segments(budget), strict=True):
        assert segment.epochs >= 1
        assert segment.data_fraction == budget.at(rung).data_fraction
        done += work(segment)
        assert done >= work(budget.at(rung)) - 1e-9
    # Whole epochs: each segment rounds up by less than one.
    assert done < work(budget.at(budget.last)) + len(budget.rungs)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_rungs_ascend_to_the_iteration_from_which_nothing_grows(budget: TuningBudget) -> None:
    assert list(budget.rungs) == sorted(set(budget.rungs))
    assert budget.rungs[0] < budget.reduction_factor
    assert budget.rungs[-1] == budget.last
    assert budget.at(budget.last) == budget.at(budget.last + 1)
    if budget.last > 1:
        assert budget.at(budget.last - 1) != budget.at(budget.last)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_the_budget_never_shrinks(budget: TuningBudget) -> None:
    steps = [budget.at(iteration) for iteration in range(1, budget.last + 3)]
    for before, after in itertools.pairwise(steps):
        assert before.epochs <= after.epochs
        assert before.data_fraction <= after.data_fraction <= 1
    full = steps[-1]
    assert full.data_fraction == 1
    assert full.epochs == (budget.min_epochs if budget.kind == "data" else budget.max_epochs)


def test_the_numbers_are_those_of_algorithm_2() -> None:
    """EDGETUNE's defaults: two epochs and a tenth of the data more in each iteration."""
    multi, epoch, data = (TuningBudget(kind) for kind in ("multi", "epoch", "data"))
    assert [multi.at(index) for index in (1, 2, 5, 6, 10)] == [
        Budget(2, 0.1),
        Budget(4, 0.2),
        Budget(10, 0.5),
        Budget(10, 0.6),
        Budget(10, 1.0),
    ]
    assert [epoch.at(index) for index in (1, 3, 5)] == [Budget(2), Budget(6), Budget(10)]
    assert [data.at(index) for index in (1, 3, 10)] == [Budget(2, 0.1), Budget(2, 0.3), Budget(2, 1.0)]
    assert (multi.rungs, epoch.rungs, data.rungs) == ((1, 3, 10), (1, 5), (1, 3, 10))


def test_a_budget_survives_its_json() -> None:
    for budget in BUDGETS:
        assert TuningBudget(**budget.to_dict()) == budget


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "both"}, "multi, epoch, data; got 'both'"),
        ({"min_epochs": 0}, "1 <= min_epochs <= max_epochs, got 0 and 10"),
        ({"min_epochs": 11}, "got 11 and 10"),
        ({"min_fraction": 0}, r"must be in \(0, 1\], got 0"),
        ({"min_fraction": 1.5}, "got 1.5"),
        ({"min_fraction": float("nan")}, "got nan"),
        ({"reduction_factor": 1}, "at least 2, got 1"),
    ],
)
def test_a_budget_out_of_range_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        TuningBudget(**fields)  # type: ignore[arg-type]
