"""The server asks its process once for a shape, survives its death once, and ends it."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support import answering
from support.chain_file import FEATURES, chain
from support.serving import Served, fake_settings

from petra_optuna.database import open_storage
from petra_optuna.errors import MeasurementFailed
from petra_optuna.inference import (
    EdgeDevice,
    InferenceServer,
    InferenceTuner,
    Pause,
    Recommendation,
    inference_objective,
)

FEEDS = {"input": np.zeros((1, FEATURES), dtype=np.float32)}


@dataclasses.dataclass
class Bench:
    """A tuner, and servers whose processes answer as they are told.

    Attributes:
        folder: Where the processes write what they were asked.
        tuner: What servers search.
        answer: What the processes recommend.
        file: File of the shape that is asked for.
    """

    folder: Path
    tuner: InferenceTuner
    answer: Recommendation
    file: Path

    def server(self, *acts: str, pause: Pause | None = None) -> InferenceServer:
        (self.folder / "script.json").write_text(json.dumps(acts))
        worker = (sys.executable, answering.__file__, str(self.folder))
        return InferenceServer(self.tuner, f"{self.folder}/study.db", pause or Pause(), worker=worker)

    def asked(self) -> list[str]:
        return [json.loads(line)["command"] for line in self._lines("requests")]

    def processes(self) -> list[int]:
        return [int(line) for line in self._lines("processes")]

    def until_asked(self) -> None:
        end = time.monotonic() + 20
        while not self.asked():
            assert time.monotonic() < end, "the process was never asked"
            time.sleep(0.01)

    def _lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


GOAL = inference_objective("throughput")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server") / "study.db"


@pytest.fixture(scope="module")
def answer(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Recommendation:
    file = tmp_path_factory.mktemp("answer") / "model.onnx"
    file.write_bytes(chain(8, 2).SerializeToString())
    with pytest.MonkeyPatch.context() as patch:
        fake_settings(patch, Served())
        tuner = InferenceTuner(open_storage(database), EdgeDevice("first", cores=1), (0,), GOAL)
        return tuner.recommend(file, FEEDS)


@pytest.fixture
def bench(request: pytest.FixtureRequest, database: Path, answer: Recommendation, tmp_path: Path) -> Bench:
    file = tmp_path / "model.onnx"
    file.write_bytes(chain(8, 2).SerializeToString())
    (tmp_path / "answer.json").write_text(json.dumps(answer.to_dict()))
    device = EdgeDevice(request.node.name, cores=1)  # no test finds the history of another
    return Bench(tmp_path, InferenceTuner(open_storage(database), device, (0,), GOAL), answer, file)


def test_two_requests_for_one_shape_are_one_search_and_an_answer_may_be_read_twice(bench: Bench) -> None:
    with bench.server("answer") as server:
        shape = server.ask(bench.file, FEEDS)
        other = bench.folder / "other.onnx"
        other.write_bytes(chain(8, 2, seed=1).SerializeToString())
        assert server.ask(other, FEEDS) == shape
        other.unlink()  # the server keeps what it needs
        assert server.answer(shape) == server.answer(shape) == bench.answer
    assert bench.asked() == ["search", "conclude"]
    assert (server.counts.searches, server.counts.hits, server.counts.restarts) == (1, 1, 0)


def test_another_shape_is_another_search_in_the_same_process(bench: Bench) -> None:
    wider = bench.folder / "wider.onnx"
    wider.write_bytes(chain(9, 2).SerializeToString())
    with bench.server("answer") as server:
        shapes = [server.ask(file, FEEDS) for file in (bench.file, wider)]
        assert [server.answer(shape) for shape in shapes] == [bench.answer] * 2
    assert len(set(shapes)) == 2
    assert server.counts.searches == 2
    assert len(bench.processes()) == 1


def test_history_answers_without_a_process(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_settings(monkeypatch, Served())
    found = bench.tuner.recommend(bench.file, FEEDS)
    with bench.server() as server:
        answer = server.answer(server.ask(bench.file, FEEDS))
    assert answer == dataclasses.replace(found, from_history=True)
    assert bench.processes() == []
    assert (server.counts.searches, server.counts.hits, server.counts.waits) == (0, 1, 0)


def test_the_wait_for_an_answer_is_counted_and_the_answer_that_is_there_is_not(bench: Bench) -> None:
    pause = Pause()
    with bench.server("answer", pause=pause) as server:
        with pause.working():  # keeps the search from its end
            shape = server.ask(bench.file, FEEDS)
            bench.until_asked()
        server.answer(shape)
        waited_s = server.counts.waited_s
        server.answer(shape)
    assert server.counts.waits <= 1
    assert server.counts.waited_s == waited_s
    assert (waited_s > 0) == (server.counts.waits == 1)


def test_the_search_ends_only_while_the_work_stands_still(bench: Bench) -> None:
    pause = Pause()
    with bench.server("answer", pause=pause) as server:
        with pause.working():
            shape = server.ask(bench.file, FEEDS)
            bench.until_asked()
            time.sleep(0.05)
            assert bench.asked() == ["search"]
            end = time.monotonic() + 20
            while bench.asked() == ["search"]:
                pause.step()
                assert time.monotonic() < end
        assert server.answer(shape) == bench.answer


def test_a_process_that_dies_is_started_again_once(bench: Bench) -> None:
    with bench.server("die", "answer") as server:
        assert server.answer(server.ask(bench.file, FEEDS)) == bench.answer
    assert server.counts.restarts == 1
    assert len(bench.processes()) == 2


def test_a_process_that_dies_twice_gives_the_reason_and_the_next_shape_a_new_one(bench: Bench) -> None:
    wider = bench.folder / "wider.onnx"
    wider.write_bytes(chain(9, 2).SerializeToString())
    with bench.server("die", "die", "answer") as server:
        shape = server.ask(bench.file, FEEDS)
        for _ in range(2):
            with pytest.raises(MeasurementFailed, match="out of luck"):
                server.answer(shape)
        assert server.answer(server.ask(wider, FEEDS)) == bench.answer
    assert server.counts.restarts == 1


def test_a_search_that_is_refused_is_not_tried_again(bench: Bench) -> None:
    with bench.server("refuse") as server:
        shape = server.ask(bench.file, FEEDS)
        with pytest.raises(MeasurementFailed, match="the model is too large"):
            server.answer(shape)
    assert bench.asked() == ["search"]
    assert server.counts.restarts == 0


def test_closing_ends_a_search_under_way_and_its_process_at_once(bench: Bench) -> None:
    began = time.monotonic()
    with bench.server("hang") as server:
        shape = server.ask(bench.file, FEEDS)
        bench.until_asked()
        wider = bench.folder / "wider.onnx"
        wider.write_bytes(chain(9, 2).SerializeToString())
        server.ask(wider, FEEDS)  # waits for its turn, which does not come
    assert time.monotonic() - began < 30
    (pid,) = bench.processes()
    assert not is_running(pid)
    assert server.counts.restarts == 0
    with pytest.raises(MeasurementFailed):
        server.answer(shape)


def test_a_server_that_is_closed_before_its_search_began_starts_no_process(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = bench.server("hang")
    began = InferenceServer._started

    def closed_meanwhile(one: InferenceServer) -> object:
        one._closed = True
        return began(one)

    monkeypatch.setattr(InferenceServer, "_started", closed_meanwhile)
    shape = server.ask(bench.file, FEEDS)
    with pytest.raises(MeasurementFailed, match="was closed"):
        server.answer(shape)
    server.close()
    assert bench.processes() == []
