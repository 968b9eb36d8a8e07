"""Replaying a recorded run under other rules at the rung."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from petra_optuna.evaluation import RungResult, Rungs
from studies.benchmarks.rung_rules import RULES, Replay, Row


def _row(number: int, quality: float | None, size: float = 1000, **changes: object) -> Row:
    """A pipeline of one training node of four epochs that took 40 s and ended at 0.99."""
    trial = optuna.trial.create_trial(state=TrialState.COMPLETE, values=[0.99, 1.0])
    trial.number = number
    rest_s = float(changes.pop("rest_s", 30.0))  # type: ignore[arg-type]
    result = None if quality is None else RungResult(1, quality, size, 100, rest_s)
    given = {"allotted": (4,), "keys": (str(number),), "seconds": 40.0, "stopped": False, "spared": False}
    return Row(trial=trial, result=result, early=quality, **(given | changes))  # type: ignore[arg-type]


def _replayed(rule: str, *rows: Row, eta: float = 4.0) -> Replay:
    replay = Replay(rule, Rungs(eta=eta), "maximize", moment=0.25)
    for row in rows:
        replay.run(row)
    return replay


def test_a_stopped_pipeline_costs_what_it_trained_and_leaves_the_file_that_it_has_there() -> None:
    rows = _row(0, 0.9, spared=True), _row(1, 0.8)
    found, lost = _replayed("now", *rows), _replayed("lost", *rows)
    assert found.made == {0: [0.99, 1.0], 1: [0.8, 1.0]}
    assert lost.made == {0: [0.99, 1.0]}
    assert found.seconds == lost.seconds == pytest.approx(40 + 40 * 0.25 / 4)


def test_neither_controls_nor_what_was_not_judged_is_stopped() -> None:
    found = _replayed("unbounded", _row(0, 0.9), _row(1, 0.8, spared=True), _row(2, None))
    assert found.made == {number: [0.99, 1.0] for number in range(3)}


def test_what_the_preview_stops_costs_nothing_and_leaves_nothing() -> None:
    found = _replayed("unbounded", _row(0, 0.9, stopped=True))
    assert (found.made, found.seconds) == ({}, 0)


def test_a_cached_prefix_is_trained_once_and_only_where_it_was_finished() -> None:
    again = {"allotted": (4, 0), "keys": ("0", "more")}
    assert _replayed("unbounded", _row(0, 0.9), _row(1, 0.1, **again)).seconds == 40
    stopped = {"allotted": (4, 0), "keys": ("1", "more")}
    rows = (_row(0, 0.9), _row(1, 0.8), _row(2, 0.8, **stopped))
    assert _replayed("unbounded", *rows).seconds == pytest.approx(40 + 2 * 40 * 0.25 / 4)


def test_what_asks_for_much_training_gives_way_unless_volume_alone_counts() -> None:
    rows = (_row(0, 0.9, 1000), _row(1, 0.7, 500), _row(2, 0.8, 100, rest_s=3000))
    assert _replayed("unbounded", *rows).made[2] == [0.8, 1.0]
    assert _replayed("volume", *rows).made[2] == [0.99, 1.0]


def test_the_rule_of_now_gives_no_more_training_than_its_share() -> None:
    better = [_row(number, 0.5 + 0.01 * number) for number in range(20)]
    assert len(_replayed("unbounded", *better, eta=5.0).judged) == 20
    assert [decision.trains_on for decision in _replayed("unbounded", *better, eta=5.0).judged] == [True] * 20
    assert sum(decision.trains_on for decision in _replayed("now", *better, eta=5.0).judged) == 6


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_stops_a_control(rule: str) -> None:
    assert _replayed(rule, _row(0, 0.1, spared=True)).made == {0: [0.99, 1.0]}
