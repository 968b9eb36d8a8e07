"""Laws of intervals and of dominance within noise, on cases made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from petra_optuna.errors import MeasurementFailed
from petra_optuna.measurement import Measurement
from petra_optuna.results.confirmation.bootstrap import interval, resample
from petra_optuna.results.confirmation.dominance import (
    dominates_within_noise,
    outcome,
    outcome_of_difference,
    ranks_within_noise,
)
from petra_optuna.results.confirmation.record import Estimate
from petra_optuna.results.confirmation.timing import ratio, time_files
from petra_optuna.tasks.metrics import METRICS, Metric, metric


def _timed(value: float, width: float = 0.0, tie: float = 0.05) -> Estimate:
    return Estimate(value, value - width, value + width, tie)


OUTCOMES = {
    "clearly less": (_timed(1.0), _timed(1.2), "minimize", 1),
    "clearly more": (_timed(1.2), _timed(1.0), "minimize", -1),
    "more is better": (_timed(1.2), _timed(1.0), "maximize", 1),
    "overlap": (_timed(1.0, 0.15), _timed(1.2, 0.15), "minimize", 0),
    "within 5 %": (_timed(1.0), _timed(1.049), "minimize", 0),
    "beyond 5 %": (_timed(1.0), _timed(1.051), "minimize", 1),
    "beyond 3 %": (_timed(1.0, tie=0.03), _timed(1.04, tie=0.03), "minimize", 1),
    "one byte": (Estimate.exact(1000.0), Estimate.exact(1001.0), "minimize", 1),
    "same bytes": (Estimate.exact(1000.0), Estimate.exact(1000.0), "minimize", 0),
}


@pytest.mark.parametrize("case", OUTCOMES)
def test_what_may_be_noise_is_a_tie(case: str) -> None:
    first, second, direction, expected = OUTCOMES[case]
    assert outcome(first, second, direction) == expected
    assert outcome(second, first, direction) == -expected


@pytest.mark.parametrize(
    ("low", "value", "high", "expected"),
    [(-0.01, 0.01, 0.03, 0), (0.0, 0.01, 0.02, 0), (0.01, 0.02, 0.03, 1)],
)
def test_quality_is_a_tie_where_the_difference_may_be_none(
    low: float, value: float, high: float, expected: int
) -> None:
    difference, swapped = Estimate(value, low, high), Estimate(-value, -high, -low)
    assert outcome_of_difference(difference, "maximize") == expected
    assert outcome_of_difference(difference, "minimize") == -expected
    assert outcome_of_difference(swapped, "maximize") == -expected


def _outcomes(*pairs: tuple[int, int, list[int]]) -> np.ndarray:
    count = 1 + max(max(first, second) for first, second, _ in pairs)
    table = np.zeros((count, count, len(pairs[0][2])), dtype=np.int64)
    for first, second, found in pairs:
        table[first, second], table[second, first] = found, [-sign for sign in found]
    return table


def test_a_tie_everywhere_but_one_dominates_and_a_trade_does_not() -> None:
    table = _outcomes((0, 1, [0, 1, 0]), (0, 2, [1, 1, -1]), (1, 2, [1, 0, -1]))
    assert dominates_within_noise(table).tolist() == [
        [False, True, False],
        [False, False, False],
        [False, False, False],
    ]
    assert ranks_within_noise(table).tolist() == [0, 1, 0]


def test_ranks_count_the_chain_also_through_a_tie() -> None:
    """0 beats 1, 1 beats 2, 0 and 2 tie: ties are not transitive, ranks are."""
    table = _outcomes((0, 1, [1]), (1, 2, [1]), (0, 2, [0]))
    assert ranks_within_noise(table).tolist() == [0, 1, 2]


def test_in_a_circle_nobody_dominates_and_who_is_below_it_is_still_below() -> None:
    table = _outcomes((0, 1, [1]), (1, 2, [1]), (2, 0, [1]), (0, 3, [1]))
    assert not dominates_within_noise(table)[:3, :3].any()
    assert ranks_within_noise(table).tolist() == [0, 0, 0, 1]


def _samples(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, count)
    outputs = rng.normal(size=(count, 3)) + 2 * np.eye(3)[targets]
    return outputs, targets


def test_equal_files_differ_by_nothing_and_a_permutation_shows() -> None:
    outputs, targets = _samples()
    worse = np.where(np.arange(400)[:, None] < 60, -outputs, outputs)
    table = resample(metric("accuracy"), [outputs, outputs, worse], targets, 300, np.random.default_rng(1))
    same = interval(0.0, table[:, 0] - table[:, 1])
    assert (same.low, same.high) == (0.0, 0.0)
    assert interval(0.1, table[:, 0] - table[:, 2]).low > 0


def test_paired_differences_are_narrower_than_unpaired_ones() -> None:
    outputs, targets = _samples()
    near = outputs.copy()
    near[:6] *= -1
    table = resample(metric("accuracy"), [outputs, near], targets, 500, np.random.default_rng(1))
    paired = np.std(table[:, 0] - table[:, 1])
    assert paired < 0.5 * np.sqrt(table[:, 0].var() + table[:, 1].var())


def test_the_interval_of_a_share_is_the_binomial_one() -> None:
    outputs, targets = _samples()
    accuracy = metric("accuracy")
    value = accuracy(outputs, targets)
    found = interval(value, resample(accuracy, [outputs], targets, 4000, np.random.default_rng(2))[:, 0])
    half = 1.96 * np.sqrt(value * (1 - value) / len(targets))
    assert found.low == pytest.approx(value - half, abs=0.2 * half)
    assert found.high == pytest.approx(value + half, abs=0.2 * half)


def test_the_quick_way_is_the_metric_of_each_resample() -> None:
    outputs, targets = _samples(50)
    for known in METRICS:
        if known.per_sample is not None:
            slow = Metric(known.name, known.direction, known.function)
            read = outputs[:, 0] if known.regression else outputs
            quick, plain = (
                resample(way, [read], targets, 20, np.random.default_rng(3)) for way in (known, slow)
            )
            assert np.allclose(quick, plain, atol=1e-12)


def test_resamples_without_a_metric_are_left_out_for_all() -> None:
    """Of four samples every eighth resample holds one class only."""
    scores, targets = np.array([0.1, 0.9, 0.2, 0.8]), np.array([0, 1, 0, 1])
    table = resample(metric("auc"), [scores, -scores], targets, 200, np.random.default_rng(0))
    assert 100 < len(table) < 200
    assert np.isfinite(table).all()
    with pytest.raises(MeasurementFailed, match="undefined on every resample"):
        resample(metric("auc"), [scores], np.zeros(4), 100, np.random.default_rng(0))


def _measured(ratio: float, low: float, high: float, batch: int = 1) -> Measurement:
    return Measurement(ratio, low, high, 6, 10, batch, 1, 1.0, 1.0, 0.0, 1.0, 1.0)


def test_a_round_that_was_off_widens_the_interval_and_leaves_the_median() -> None:
    rounds = [_measured(0.5, 0.49, 0.51), _measured(0.52, 0.5, 0.53), _measured(0.9, 0.8, 1.0)]
    assert ratio(rounds) == Estimate(0.52, 0.49, 1.0, 0.05)
    assert ratio([_measured(0.5, 0.5, 0.5, batch=64)]).tie == 0.03


def test_each_round_starts_elsewhere_and_a_crash_costs_one_file_only(tmp_path) -> None:
    order = []

    class Measurer:
        def measure(self, path):
            order.append(path.name)
            if path.name == "b":
                raise MeasurementFailed("crashed")
            return {"latency": _measured(1, 1, 1)}

    names = ["a", "b", "c"]
    found = time_files(
        {index: tmp_path / name for index, name in enumerate(names)}, Measurer(), 3, lambda done: None
    )
    assert order == ["a", "b", "c", "c", "a", "c", "a"]
    assert found.failures == {1: "crashed"}
    assert [len(found.rounds[index]) for index in (0, 2)] == [3, 3]


def test_what_is_no_number_is_neither_better_nor_worse() -> None:
    number, none = Estimate(1.0, 0.99, 1.01), Estimate(*[float("nan")] * 3)
    for direction in ("minimize", "maximize"):
        assert outcome(none, number, direction) == outcome(number, none, direction) == 0


def test_blocks_of_neighbours_are_drawn_together() -> None:
    rows = np.arange(20.0)
    first = Metric("first", "maximize", lambda outputs, targets: float(np.diff(outputs).tolist().count(1.0)))
    table = resample(first, [rows], rows, 100, np.random.default_rng(0), block=5)
    assert (
        table >= 12
    ).all()  # four blocks of five have four steps of one each, but at the end of the series
    single = resample(first, [rows], rows, 100, np.random.default_rng(0))
    assert single.mean() < 2


def test_blocks_widen_the_interval_of_what_depends_on_its_neighbours() -> None:
    steps = np.repeat(np.random.default_rng(1).normal(size=40), 50)
    zeros = np.zeros(len(steps))
    spread = [
        resample(metric("mae"), [steps], zeros, 200, np.random.default_rng(0), block=block).std()
        for block in (1, 50)
    ]
    expected = np.abs(steps).reshape(40, 50).mean(1).std() / np.sqrt(40)
    assert spread[1] == pytest.approx(expected, rel=0.3)
    assert spread[1] > 3 * spread[0]


def test_a_last_block_is_cut_and_every_sample_is_drawn_equally_often() -> None:
    targets = np.arange(7.0)
    table = resample(metric("mae"), [targets], np.zeros(7), 4000, np.random.default_rng(0), block=3)
    assert table.mean() == pytest.approx(3.0, abs=0.05)
