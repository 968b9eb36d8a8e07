"""The process of the inference tuning server: ``python -m petra_optuna.inference.server_process``.

It reads one JSON request a line from stdin and answers each with one JSON line on its first stdout::

    {"command": "search", "storage": URL, "tuner": {...}, "file": PATH, "feeds": FOLDER}
    {"command": "conclude"}

``search`` measures all settings but the last ones, which may be done beside a training. ``conclude`` takes
the last measurements and answers with the recommendation. An answer is ``{"result": ...}`` or
``{"error": TEXT}``. The process ends when its stdin does.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import optuna

from petra_optuna.database import open_storage
from petra_optuna.errors import TrialError, UserError, one_line
from petra_optuna.inference.search import InferenceSearch
from petra_optuna.inference.tuner import InferenceTuner
from petra_optuna.measurement import load_feeds, private_stdout


class _Server:
    """Answers requests; a search stays open until it is concluded or another one begins."""

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        self._tuner: InferenceTuner | None = None
        self._search: InferenceSearch | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"result": self._result(request)}
        except (TrialError, UserError) as error:
            self._open.close()
            return {"error": one_line(error)}

    def close(self) -> None:
        self._open.close()

    def _result(self, request: dict[str, Any]) -> object:
        if request["command"] == "search":
            self._open.close()
            self._tuner = InferenceTuner.from_dict(request["tuner"], open_storage(request["storage"]))
            if hasattr(os, "sched_setaffinity"):  # elsewhere the measuring process says that it cannot
                os.sched_setaffinity(0, self._tuner.cores)
            searched = self._tuner.searched(Path(request["file"]), load_feeds(Path(request["feeds"])))
            self._search = self._open.enter_context(searched)
            return None
        if self._tuner is None or self._search is None:
            raise ValueError("the first request must be 'search'")
        answer = self._tuner.concluded(self._search)
        self._open.close()
        return answer.to_dict()


def main() -> None:
    """Serve on stdin and a private copy of stdout."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    answers = private_stdout()
    server = _Server()
    for line in sys.stdin:
        answers.write(json.dumps(server.answer(json.loads(line))) + "\n")
        answers.flush()
    server.close()


if __name__ == "__main__":
    main()
