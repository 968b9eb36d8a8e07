from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from petra_optuna.measurement import open_file
from petra_optuna.measurement.open_file import OpenFile

FEEDS = {"input": np.zeros((1, 4), dtype=np.float32)}


class Clock:
    """A runtime and a clock: calls take ``calls``, then the last of them each time, opening ``open_s``."""

    def __init__(self, *calls: float, open_s: float = 0.001, output: int = 10) -> None:
        self.now = 0.0
        self.calls = itertools.chain(calls, itertools.repeat(calls[-1]))
        self.open_s = open_s
        self.output = np.zeros(output, dtype=np.uint8)
        self.opened = 0

    def perf_counter(self) -> float:
        return self.now

    def open(self, path: Path, threads: int, device: str) -> Clock:
        self.now += self.open_s
        self.opened += 1
        return self

    def run(self, feeds: object) -> list[np.ndarray]:
        self.now += next(self.calls)
        return [self.output]


def _load(clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int = 1000) -> OpenFile:
    monkeypatch.setattr(open_file.time, "perf_counter", clock.perf_counter)
    monkeypatch.setattr(open_file, "runtime", lambda name: clock)
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(size))
    return OpenFile.load(path, FEEDS, 1, ("onnxruntime", "cpu"), most_copies=30)


def test_one_interrupted_call_does_not_decide_about_the_copies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded = _load(Clock(1.0, 0.015, 0.0001), monkeypatch, tmp_path)
    assert (loaded.copies, loaded.call_s) == (29, pytest.approx(0.0001))


@pytest.mark.parametrize(
    ("clock", "size", "copies"),
    [
        (Clock(0.003), 1000, 1),  # long calls do not depend on their place
        (Clock(0.0001), 10_000_000, 7),
        (Clock(0.0001, output=10_000_000), 1000, 7),
        (Clock(0.0001, open_s=0.1), 1000, 9),
        (Clock(0.0001, open_s=9.0), 1000, 1),
        (Clock(0.0001), 90_000_000, 1),
    ],
)
def test_copies_follow_from_the_calls_the_bytes_and_the_time_to_open(
    clock: Clock, size: int, copies: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert _load(clock, monkeypatch, tmp_path, size).copies == copies


def test_a_call_of_seconds_is_tried_twice_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Clock(10.0)
    assert _load(clock, monkeypatch, tmp_path).call_s == pytest.approx(10.0)
    assert clock.now == pytest.approx(20.0 + clock.open_s)


def test_each_measurement_opens_its_copies_anew_as_their_turn_comes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock(0.0001, open_s=0.2)
    loaded = _load(clock, monkeypatch, tmp_path)
    assert (loaded.copies, clock.opened) == (5, 1)
    for _ in range(2):
        before = clock.opened
        calls = list(itertools.islice(loaded.side().copies, 12))
        assert clock.opened - before == 5
        assert len({id(call) for call in calls}) == 5
        assert calls[0] is calls[5]
