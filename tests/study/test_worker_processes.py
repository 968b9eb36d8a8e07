"""Helpers get what the caller gave, are missed at once, and end with their parent."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from support.children import child_of
from support.toy_study import new_study, opened, signed

from petra_optuna.errors import StudyError
from petra_optuna.study import ParentWatch, Stop, TaskSource
from petra_optuna.study.trial_loop import TrialLoop
from petra_optuna.study.worker_processes import HelperCommand, Helpers, running_helpers

pytestmark = pytest.mark.filterwarnings("ignore:.*is experimental")


def _command(monkeypatch: pytest.MonkeyPatch, code: str) -> HelperCommand:
    """A command whose helpers run this Python code."""
    monkeypatch.setattr(HelperCommand, "words", lambda self: [sys.executable, "-c", code])
    return HelperCommand("study", "sqlite:///study.db", TaskSource("digits"), Stop(trials=1))


def _wait_until(happened: Callable[[], bool]) -> None:
    for _ in range(1000):
        if happened():
            return
        time.sleep(0.02)
    raise AssertionError("it never happened")


def test_a_helper_gets_all_that_the_caller_gave() -> None:
    source = TaskSource("cifar10", "/moved/data", "/moved/weights.safetensors")
    stop = Stop(trials=7, timeout_s=60.5, generations=3, stagnation=5, targets={"accuracy": 0.9, "size": 1e6})
    words = HelperCommand("mine", "sqlite:////a/study.db", source, stop).words()
    assert words[1:] == [
        "-m",
        "petra_optuna",
        "resume",
        "--study=mine",
        "--storage=sqlite:////a/study.db",
        "--task=cifar10",
        "--data-root=/moved/data",
        "--checkpoint=/moved/weights.safetensors",
        "--trials=7",
        "--timeout=60.5",
        "--generations=3",
        "--stagnation=5",
        "--target=accuracy=0.9",
        "--target=size=1000000.0",
        "--quiet",
        "--helper",
    ]


def test_a_helper_that_dies_is_missed_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    command = _command(monkeypatch, "raise SystemExit(3)")

    def go_on_until_it_is_told() -> None:
        with running_helpers(command, 1):
            _wait_until(lambda: bool(caplog.messages))

    with pytest.raises(StudyError, match="a worker process ended with exit code 3; its message stands above"):
        go_on_until_it_is_told()
    assert caplog.messages == ["a worker process ended with exit code 3; the others go on"]


def test_helpers_are_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = tmp_path / "done"
    code = f"import pathlib, time; time.sleep(0.3); pathlib.Path({str(done)!r}).touch()"
    with running_helpers(_command(monkeypatch, code), 1):
        assert not done.exists()
    assert done.exists()


def test_an_interrupted_run_ends_its_helpers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    command = _command(monkeypatch, "import time; time.sleep(1000)")
    with pytest.raises(KeyboardInterrupt), running_helpers(command, 2) as helpers:
        raise KeyboardInterrupt
    assert len(helpers.failures) == 2
    assert caplog.messages == []


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_pipe_of_a_helper_closes_however_its_parent_ends(end: signal.Signals, tmp_path: Path) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    touch = "pathlib.Path({!r}).touch()".format
    code = f"import pathlib, sys; {touch(str(begun))}; sys.stdin.buffer.read(); {touch(str(ended))}"
    words = [sys.executable, "-c", code]
    with child_of(lambda: Helpers(words, 1).wait()) as parent:
        _wait_until(begun.exists)
        assert not ended.exists()
        os.kill(parent, end)
        _wait_until(ended.exists)


def test_a_helper_finishes_its_trial_when_its_parent_ends_and_starts_no_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = new_study(url)
    read, write = os.pipe()
    go_on = tmp_path / "parent ended"

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        if trial.number == 1:
            _wait_until(go_on.exists)
            time.sleep(0.3)
        return signed(trial)

    def helper() -> None:
        os.close(write)
        watch = ParentWatch(read)
        TrialLoop(opened(url), Stop(trials=100), (watch,)).run(objective)

    with child_of(helper):
        os.close(read)
        _wait_until(lambda: len(study.get_trials(deepcopy=False)) == 2)
        os.close(write)
        go_on.touch()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
