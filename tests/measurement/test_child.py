"""How long a child may take: by its own word, and without what it waited for a core."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator

import pytest

from petra_optuna.errors import MeasurementFailed
from petra_optuna.measurement import child as child_module
from petra_optuna.measurement.child import Child

SILENT_S = 0.3


def _child(body: str) -> Child:
    """A child that runs ``body`` for its first request; ``say(TEXT)`` writes a line."""
    script = (
        "import sys, time\ndef say(text): print(text, flush=True)\nsay('{\"result\": 0}')\ninput()\ninput()\n"
    )
    started = Child((sys.executable, "-c", script + textwrap.dedent(body)))
    assert started.ask({}, 20.0) == 0  # it has started: only the body takes time from here
    return started


def _result(body: str, timeout_s: float) -> object:
    started = _child(body)
    try:
        return started.ask({}, timeout_s)
    finally:
        started.kill()


def test_each_step_has_the_time_that_was_announced_for_it() -> None:
    slow = f"""
        say('{{"expected_s": 0.0}}'); time.sleep({SILENT_S})
        say('{{"expected_s": 0.2}}'); time.sleep({4 * SILENT_S})
        say('{{"result": 7}}')
    """
    assert _result(slow, 2 * SILENT_S) == 7
    with pytest.raises(MeasurementFailed, match=r"no answer .* in 0\.6 s"):
        _result(slow.replace("0.2", "0.0"), 2 * SILENT_S)


@pytest.mark.parametrize(("waits", "answers"), [(0.0, False), (4 * SILENT_S, True)])
def test_waits_for_a_core_do_not_count(waits: float, answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    readings: Iterator[float] = iter([0.0, 0.0, *[waits] * 9])
    monkeypatch.setattr(child_module, "waited_by", lambda pid: next(readings))
    body = f"time.sleep({3 * SILENT_S}); say('{{\"result\": 7}}')"
    if answers:
        assert _result(body, SILENT_S) == 7
    else:
        with pytest.raises(MeasurementFailed, match=r"no answer"):
            _result(body, SILENT_S)


def test_a_child_that_never_gets_a_core_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter(range(10**6))
    monkeypatch.setattr(child_module, "waited_by", lambda pid: float(next(readings)) * 100)
    with pytest.raises(MeasurementFailed, match=r"no answer"):
        _result("time.sleep(60)", 0.05)
