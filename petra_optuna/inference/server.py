"""The inference tuning server: answers for architectures, searched in a process beside the training.

EDGETUNE's Algorithm 1: inference tuning needs the architecture alone, so it starts on random weights while
the model trains, and what it found answers for every trial of that architecture.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np

from petra_optuna.errors import MeasurementFailed
from petra_optuna.inference.pause import Pause
from petra_optuna.inference.recommendation import Recommendation
from petra_optuna.inference.tuner import InferenceTuner
from petra_optuna.measurement import Child, RequestRefused, write_feeds
from petra_optuna.scratch import scratch_folder

logger = logging.getLogger(__name__)
WORKER = (sys.executable, "-m", "petra_optuna.inference.server_process")
MODEL = "model.onnx"
_TRIES = 2
"""Processes that a search may use up: it is begun once more after a crash."""
_SLACK_S = 300.0
"""Seconds that a search may take beyond its time: it begins and ends with work that is not counted."""


@dataclasses.dataclass
class ServerCounts:
    """What a server did.

    Attributes:
        searches: Searches that were begun.
        hits: Requests that history answered, or a search of this server for the same shape.
        waits: Answers that were waited for, because the training ended first.
        waited_s: Seconds of these waits.
        restarts: Times that the process was started again after a crash.
    """

    searches: int = 0
    hits: int = 0
    waits: int = 0
    waited_s: float = 0.0
    restarts: int = 0


class InferenceServer:
    """Searches settings for architectures in a process of its own.

    Args:
        tuner: What is searched, and where answers are kept.
        url: URL of the tuner's storage.
        pause: Makes the training of this process stand still for the last measurements of a search.
        worker: Command of the process; another one only in tests.
        clock: Monotonic clock in seconds.
    """

    def __init__(
        self,
        tuner: InferenceTuner,
        url: str,
        pause: Pause,
        *,
        worker: Sequence[str] = WORKER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = ServerCounts()
        self._tuner = tuner
        self._url = url
        self._pause = pause
        self._worker = tuple(worker)
        self._clock = clock
        self._folder = scratch_folder("inference")
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference-server")
        self._answers: dict[str, Future[Recommendation]] = {}
        self._state = threading.Lock()
        self._child: Child | None = None
        self._closed = False

    def shape(self, file: Path, feeds: Mapping[str, np.ndarray]) -> str:
        """The shape of a file, as ``ask`` returns it; the arguments are those of ``ask``.

        Raises:
            MeasurementFailed: When the file cannot be read.
        """
        return self._tuner.shape(file, feeds)

    def ask(self, file: Path, feeds: Mapping[str, np.ndarray]) -> str:
        """Ask how to serve files of this one's shape, without waiting for the answer.

        Args:
            file: ONNX file, with any weights; it may be removed afterwards.
            feeds: Sample inputs by name, batch first.

        Returns:
            The shape, by which ``answer`` finds the answer.

        Raises:
            MeasurementFailed: When the file cannot be read.
        """
        shape = self.shape(file, feeds)
        if shape in self._answers:
            self.counts.hits += 1
            return shape
        stored = self._tuner.known(shape)
        if stored is not None:
            self.counts.hits += 1
            self._answers[shape] = Future()
            self._answers[shape].set_result(stored)
            return shape
        self.counts.searches += 1
        folder = Path(self._folder.name, shape[:16])
        folder.mkdir(exist_ok=True)
        shutil.copyfile(file, folder / MODEL)
        write_feeds(folder, feeds)
        self._answers[shape] = self._thread.submit(self._search, folder)
        return shape

    def answer(self, shape: str) -> Recommendation:
        """The answer for a shape that was asked for; waits for it where it is not there yet.

        Raises:
            MeasurementFailed: When the search failed, with its reason.
        """
        future = self._answers[shape]
        if future.done():
            return future.result()
        self.counts.waits += 1
        began = self._clock()
        try:
            return future.result()
        finally:
            self.counts.waited_s += self._clock() - began

    def close(self) -> None:
        """End the process; a search under way ends with it and has no answer."""
        with self._state:
            self._closed = True
            if self._child is not None:
                self._child.kill()
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._folder.cleanup()

    def __enter__(self) -> InferenceServer:
        """The same object; nothing is started yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _search(self, folder: Path) -> Recommendation:
        """Search once more where the process crashed; runs in the server's thread."""
        for left in reversed(range(_TRIES)):
            try:
                return self._searched(folder)
            except RequestRefused as error:
                raise MeasurementFailed(str(error)) from error
            except MeasurementFailed as error:
                if not left or self._closed:
                    raise
                self.counts.restarts += 1
                logger.warning("the inference server is started again: %s", error)
        raise AssertionError("the last try returns or raises")

    def _searched(self, folder: Path) -> Recommendation:
        request = {
            "command": "search",
            "storage": self._url,
            "tuner": self._tuner.to_dict(),
            "file": str(folder / MODEL),
            "feeds": str(folder),
        }
        child = self._started()
        try:
            child.ask(request, self._tuner.timeout_s + _SLACK_S)
            with self._pause.quiet():
                answer = child.ask({"command": "conclude"}, _SLACK_S)
        except MeasurementFailed:  # it has ended or hangs
            with self._state:
                child.kill()
                self._child = None
            raise
        return Recommendation.from_dict(answer)

    def _started(self) -> Child:
        """The process, which a closed server does not start any more."""
        with self._state:
            if self._closed:
                raise MeasurementFailed("the inference server was closed")
            if self._child is None:
                self._child = Child(self._worker)
            return self._child
