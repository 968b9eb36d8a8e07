from __future__ import annotations

import math

import numpy as np
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from support.toy_space import IMPLYING, UNTRAINED, Cut, Fit, Fold, Pack, Squash, Warm

from petra_optuna.evolution import change_value, draw_value, random_pipeline
from petra_optuna.evolution.values import change_record, draw_record
from petra_optuna.pipeline import Recipe

DISTRIBUTIONS = [
    FloatDistribution(-1.0, 1.0),
    FloatDistribution(1e-5, 1e-1, log=True),
    FloatDistribution(-10.2, 10.2, step=0.1),
    FloatDistribution(-1e308, 1e308),
    IntDistribution(-3, 10),
    IntDistribution(1, 100, log=True),
    IntDistribution(3, 15, step=4),
    IntDistribution(0, 1),
    CategoricalDistribution(("a", 1, None, True)),
]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=repr)
def test_values_belong_to_their_distribution_and_changes_change(distribution: BaseDistribution) -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        value = draw_value(distribution, rng)
        changed = change_value(distribution, value, rng)
        for each in (value, changed):
            assert distribution._contains(distribution.to_internal_repr(each))
            assert not isinstance(each, np.generic)
        assert (changed, type(changed)) != (value, type(value))


SMALL = [
    (IntDistribution(-3, 10), set(range(-3, 11))),
    (IntDistribution(1, 8, log=True), set(range(1, 9))),
    (IntDistribution(3, 15, step=4), {3, 7, 11, 15}),
    (FloatDistribution(0.0, 1.0, step=0.25), {0.0, 0.25, 0.5, 0.75, 1.0}),
    (CategoricalDistribution(("a", 2, None)), {"a", 2, None}),
]


@pytest.mark.parametrize(("distribution", "values"), SMALL, ids=[repr(each) for each, _ in SMALL])
def test_every_value_of_a_small_distribution_is_reached(
    distribution: BaseDistribution, values: set[object]
) -> None:
    rng = np.random.default_rng(1)
    assert {draw_value(distribution, rng) for _ in range(500)} == values
    value = draw_value(distribution, rng)
    assert {value := change_value(distribution, value, rng) for _ in range(500)} == values


def test_a_single_value_stays() -> None:
    assert change_value(IntDistribution(3, 3), 3, np.random.default_rng(0)) == 3


def test_a_log_scale_is_drawn_and_stepped_on_as_such() -> None:
    rng = np.random.default_rng(2)
    distribution = FloatDistribution(1e-5, 1e-1, log=True)
    drawn = [math.log10(draw_value(distribution, rng)) for _ in range(2000)]  # type: ignore[arg-type]
    assert np.median(drawn) == pytest.approx(-3, abs=0.15)
    changed = [change_value(distribution, 1e-4, rng) for _ in range(2000)]
    decades = [abs(math.log10(value / 1e-4)) for value in changed]  # type: ignore[operator]
    # Small steps are 0.15 of four decades; without them the median distance of a draw would be 1.5 decades.
    assert np.median(decades) < 0.8
    assert max(decades) > 2.5


def test_the_ends_of_a_range_gather_no_mass() -> None:
    rng = np.random.default_rng(3)
    distribution = FloatDistribution(0.0, 1.0)
    changed = [change_value(distribution, 0.02, rng) for _ in range(2000)]
    assert sum(value in (0.0, 1.0) for value in changed) == 0


def test_a_drawn_record_holds_defaults_where_fields_do_not_count() -> None:
    rng = np.random.default_rng(4)
    records = [draw_record(Fold, rng) for _ in range(200)]
    assert all(record == record.canonical() for record in records)
    assert {(record.rule, record.energy) for record in records} >= {("energy", "tight"), ("rank", "loose")}


def test_a_changed_record_differs_in_a_field_that_counts() -> None:
    rng = np.random.default_rng(5)
    for _ in range(500):
        record = draw_record(Fold, rng)
        changed = change_record(record, rng)
        assert changed is not None
        assert changed.active_values() != record.active_values()
        assert changed == changed.canonical()


def test_fields_that_start_to_count_are_drawn() -> None:
    rng = np.random.default_rng(6)
    ranks = {
        changed.rank
        for _ in range(300)
        if (changed := change_record(Fold(rule="energy"), rng)) is not None and changed.rule == "rank"
    }
    assert len(ranks) > 5


def test_a_change_keeps_to_the_fields_it_may_touch() -> None:
    rng = np.random.default_rng(7)
    for _ in range(100):
        changed = change_record(Recipe(), rng, among={"lr", "schedule"})
        assert changed is not None
        differing = {name for name, value in changed.values().items() if value != getattr(Recipe(), name)}
        assert differing <= {"lr", "schedule"}
        assert differing


def test_there_may_be_nothing_to_change() -> None:
    rng = np.random.default_rng(8)
    assert change_record(Squash(), rng) is None
    assert change_record(Recipe(), rng, among=()) is None


def test_random_pipelines_are_legal_and_varied() -> None:
    rng = np.random.default_rng(9)
    drawn = [random_pipeline(IMPLYING, length, rng) for length in range(6) for _ in range(200)]
    assert all(IMPLYING.violations(pipeline) == () for pipeline in drawn)
    assert [len(pipeline.body) for pipeline in drawn] == [length for length in range(6) for _ in range(200)]
    kinds = {type(node) for pipeline in drawn for node in pipeline}
    assert kinds == {*IMPLYING.operations}
    assert {type(pipeline.conversion) for pipeline in drawn} == {Pack, Squash, type(None)}
    assert len({node.ratio for pipeline in drawn for node in pipeline if isinstance(node, Cut)}) > 500


def test_random_pipelines_of_an_untrained_space_start_with_what_may_train_from_initialisation() -> None:
    rng = np.random.default_rng(10)
    drawn = [random_pipeline(UNTRAINED, length, rng) for length in range(6) for _ in range(50)]
    assert all(UNTRAINED.violations(pipeline) == () for pipeline in drawn)
    assert {type(pipeline.body[0]) for pipeline in drawn} == {Fit, Warm}
    assert {type(node) for pipeline in drawn for node in pipeline.body[1:]} == {*UNTRAINED.body}
