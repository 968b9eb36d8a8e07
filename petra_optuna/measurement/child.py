"""A child process that answers JSON lines, and the error for each way in which it can fail."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import IO, Any

from petra_optuna.errors import MeasurementFailed
from petra_optuna.measurement.load import waited_by

_SLOWER = 10.0
"""How many times longer than expected a step may take."""


class RequestRefused(Exception):
    """The child answered with an error and can take the next request."""


class Child:
    """A process that answers one request at a time; it starts when this is made.

    Args:
        command: Program and arguments of a process that reads requests on stdin and answers on stdout.
    """

    def __init__(self, command: Sequence[str]) -> None:
        # A file, not a pipe: nobody reads while the child is silent, and a full pipe would stop it.
        self._stderr = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: IO[str] = self._process.stdin
        self._answers: queue.Queue[str | None] = queue.Queue()
        # Reading with a timeout needs a thread on every platform but Unix.
        threading.Thread(target=_queue_lines, args=(self._process.stdout, self._answers), daemon=True).start()

    def ask(self, request: dict[str, Any], timeout_s: float) -> Any:
        """Send a request and return the ``result`` of the answer.

        Args:
            request: Request, JSON-ready.
            timeout_s: Longest time without a line from the child. After a line ``{"expected_s": SECONDS}``
                ten times those seconds may pass besides. Time for which the child waited for a core does not
                count, up to ten times the limit.

        Raises:
            RequestRefused: When the child answers with an error.
            MeasurementFailed: When it dies or does not answer in time; it cannot be asked again.
        """
        try:
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
        except OSError as error:
            raise MeasurementFailed(self._reason_of_end()) from error
        answer = self._next(timeout_s)
        while "expected_s" in answer:
            answer = self._next(timeout_s + _SLOWER * answer["expected_s"])
        if "error" in answer:
            raise RequestRefused(answer["error"])
        return answer["result"]

    def kill(self) -> None:
        """End the child, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._stderr.close()

    def _next(self, limit_s: float) -> dict[str, Any]:
        """The next line of the child, parsed."""
        began, waited = time.monotonic(), waited_by(self._process.pid)
        left = limit_s
        while left > 0:
            try:
                line = self._answers.get(timeout=left)
            except queue.Empty:
                spared = min(waited_by(self._process.pid) - waited, (_SLOWER - 1) * limit_s)
                left = limit_s + spared - (time.monotonic() - began)
                continue
            if line is None:
                raise MeasurementFailed(self._reason_of_end())
            parsed: dict[str, Any] = json.loads(line)
            return parsed
        raise MeasurementFailed(f"no answer from the measuring process in {limit_s:g} s")

    def _reason_of_end(self) -> str:
        """Signal, last line on stderr or exit status of the process, once it has ended."""
        code = self._process.wait()
        if code < 0:
            return f"the measuring process crashed: {signal.Signals(-code).name}"
        self._stderr.seek(0)
        lines = self._stderr.read().strip().splitlines()
        return f"the measuring process ended: {lines[-1] if lines else f'exit status {code}'}"


def _queue_lines(source: IO[str], answers: queue.Queue[str | None]) -> None:
    """Put each line of ``source`` into the queue, then None."""
    for line in source:
        answers.put(line)
    answers.put(None)
