"""Replaying a recorded run under other rules at the rung."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from petra_optuna.evaluation import RungResult, Rungs
from studies.benchmarks.rung_rules import RULES, Replay, Row


def _row(number: int, quality: float | None, size: float = 1000, **changes: object) -> Row:
    """A pipeline of one training node of four epochs that took 40 s."""
    trial = optuna.trial.create_trial(state=TrialState.COMPLETE, value=0.0)
    trial.number = number
    result = None if quality is None else RungResult(1, quality, size, 100)
    given = {"allotted": (4,), "keys": (str(number),), "seconds": 40.0, "stopped": False, "spared": False}
    return Row(trial=trial, result=result, **(given | changes))  # type: ignore[arg-type]


def _replayed(rule: str, *rows: Row, eta: float = 4.0) -> Replay:
    replay = Replay(rule, Rungs(eta=eta), "maximize", moment=0.25)
    for row in rows:
        replay.run(row)
    return replay


def test_a_stopped_pipeline_costs_what_it_trained_and_is_not_kept() -> None:
    found = _replayed("best", _row(0, 0.9), _row(1, 0.8))
    assert found.kept == {0}
    assert found.seconds == pytest.approx(40 + 40 * 0.25 / 4)


def test_neither_controls_nor_what_was_not_judged_is_stopped() -> None:
    assert _replayed("best", _row(0, 0.9), _row(1, 0.8, spared=True), _row(2, None)).kept == {0, 1, 2}


def test_what_the_preview_stops_costs_nothing_and_is_not_kept() -> None:
    found = _replayed("best", _row(0, 0.9, stopped=True))
    assert (found.kept, found.seconds) == (set(), 0)


def test_a_cached_prefix_is_trained_once_and_only_where_it_was_finished() -> None:
    again = {"allotted": (4, 0), "keys": ("0", "more")}
    assert _replayed("best", _row(0, 0.9), _row(1, 0.1, **again)).seconds == 40
    stopped = {"allotted": (4, 0), "keys": ("1", "more")}
    rows = (_row(0, 0.9), _row(1, 0.8), _row(2, 0.8, **stopped))
    assert _replayed("best", *rows).seconds == pytest.approx(40 + 2 * 40 * 0.25 / 4)


def test_grace_keeps_what_none_dominates_while_few_are_there() -> None:
    rows = [_row(number, 0.9 - 0.1 * number, 1000 / 2**number) for number in range(5)]
    assert len(_replayed("best", *rows, eta=100).kept) < 5
    assert _replayed("grace", *rows, eta=100).kept == {0, 1, 2, 3, 4}
    dominated = _replayed("grace", _row(0, 0.9), _row(1, 0.8))
    assert dominated.kept == {0}


def test_again_takes_up_what_is_among_the_best_by_then_and_trains_it_anew() -> None:
    rows = [_row(0, 0.9), _row(1, 0.8), *(_row(number, 0.8 - 0.1 * number) for number in range(2, 5))]
    best, again = (_replayed(rule, *rows) for rule in ("best", "again"))
    assert best.kept == {0}
    assert again.kept == {0, 1}
    assert again.seconds == pytest.approx(best.seconds + 40)
    assert [row.trial.number for row in again.waiting] == [2, 3, 4]


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_stops_the_first(rule: str) -> None:
    assert _replayed(rule, _row(0, 0.1)).kept == {0}
