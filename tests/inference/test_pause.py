"""Work stands still within a quiet block, and only there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from petra_optuna.inference import Pause


class Work:
    """Counts steps in a thread of its own until it is told to end."""

    def __init__(self, pause: Pause) -> None:
        self.pause = pause
        self.steps = 0
        self.goes_on = True

    def __call__(self) -> None:
        with self.pause.working():
            while self.goes_on:
                self.pause.step()
                self.steps += 1


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.001)


@contextmanager
def running(work: Callable[[], None]) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield thread
    thread.join(10)
    assert not thread.is_alive()


def test_work_stands_still_within_every_quiet_block_and_goes_on_after_it() -> None:
    pause = Pause()
    work = Work(pause)
    with running(work):
        for _ in range(50):
            before = work.steps
            until(lambda before=before: work.steps > before)
            with pause.quiet():
                stood = work.steps
                time.sleep(0.002)
                assert work.steps == stood
        work.goes_on = False


def test_blocks_one_right_after_another_are_quiet_too() -> None:
    pause = Pause()
    work = Work(pause)
    with running(work):
        until(lambda: work.steps > 0)
        for _ in range(200):
            with pause.quiet():
                stood = work.steps
                time.sleep(0.0002)
                assert work.steps == stood
        work.goes_on = False


def test_without_work_a_block_begins_at_once_and_work_waits_for_its_end() -> None:
    pause = Pause(longest_wait_s=60.0)
    work = Work(pause)
    with running(lambda: None), pause.quiet():
        pass
    with pause.quiet():
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        time.sleep(0.02)
        assert work.steps == 0
    until(lambda: work.steps > 0)
    work.goes_on = False
    thread.join(10)


def test_a_block_that_waits_begins_when_the_work_ends() -> None:
    pause = Pause(longest_wait_s=60.0)
    began, end = threading.Event(), threading.Event()

    def without_steps() -> None:
        with pause.working():
            began.set()
            end.wait(10)

    quiet = threading.Event()

    def measure() -> None:
        with pause.quiet():
            quiet.set()

    with running(without_steps):
        began.wait(10)
        with running(measure):
            assert not quiet.wait(0.05)
            end.set()
            assert quiet.wait(10)


def test_work_that_comes_to_no_step_is_waited_for_no_longer_than_that() -> None:
    pause = Pause(longest_wait_s=0.05)
    with pause.working(), running(lambda: pause.quiet().__enter__()):
        pass


def test_work_that_is_interrupted_at_a_step_stands_there_no_longer() -> None:
    """Else the next block would begin beside the next work."""
    pause = Pause(longest_wait_s=60.0)

    def interrupted(_: object) -> bool:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        pause._asked = True
        patch.setattr(pause._state, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pause.step()
    assert not pause._stands


def test_a_step_that_nobody_asks_for_takes_no_lock() -> None:
    pause = Pause()
    step = threading.Thread(target=pause.step, daemon=True)
    with pause._state:
        step.start()
        step.join(10)
        assert not step.is_alive()
