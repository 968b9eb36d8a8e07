"""MLCommons' load generator: one test, and the times that its log gives each sample.

The Python binding reports no latencies. They stand in the trace, where each sample has an event with the
microsecond of its scheduled arrival and the nanoseconds from then to its answer.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from petra_optuna.aliases import Array
from petra_optuna.errors import UserError
from petra_optuna.scratch import scratch_folder

TestScenario = Literal["SingleStream", "Server", "Offline"]
"""MLPerf's names of its scenarios."""


class LoadGenerator:
    """MLCommons' load generator. It runs one test at a time in a process.

    Raises:
        UserError: On construction, when it is not installed.
    """

    def __init__(self) -> None:
        try:
            self._library: Any = importlib.import_module("mlperf_loadgen")
        except ImportError as error:
            raise UserError(
                "replaying requests needs MLCommons' load generator; pip install petra-optuna[loadgen]"
            ) from error

    def run(
        self,
        scenario: TestScenario,
        issue: Callable[[Sequence[Any]], None],
        *,
        duration_s: float = 0.0,
        rate_per_s: float = 1.0,
        samples: int = 1,
        seed: int = 0,
    ) -> tuple[Array, Array]:
        """Run one test and wait for all its answers.

        Args:
            scenario: MLPerf's scenario: ``Server`` issues single samples by a Poisson process.
            issue: Called with the samples that arrive together; must return at once.
            duration_s: Seconds for which ``SingleStream`` and ``Server`` issue samples.
            rate_per_s: Mean rate of ``Server``.
            samples: Number of samples of ``Offline``.
            seed: Seed of the arrivals.

        Returns:
            Second of each sample's arrival, from the first one on, and seconds from there to its answer; in
            order of arrival, shape (samples,).
        """
        library = self._library
        settings = library.TestSettings()
        settings.scenario = getattr(library.TestScenario, scenario)
        settings.mode = library.TestMode.PerformanceOnly
        settings.min_duration_ms = round(duration_s * 1e3)
        settings.min_query_count = samples
        settings.server_target_qps = settings.offline_expected_qps = rate_per_s
        settings.schedule_rng_seed = seed
        system = library.ConstructSUT(issue, _nothing)
        dataset = library.ConstructQSL(1, 1, _nothing, _nothing)
        with scratch_folder("loadgen") as folder:
            library.StartTestWithLogSettings(system, dataset, settings, self._log_into(folder), "")
            times = _read_trace(Path(folder, "mlperf_log_trace.json"))
        library.DestroyQSL(dataset)
        library.DestroySUT(system)
        return times

    def answer(self, samples: Sequence[Any]) -> None:
        """Tell that samples of ``issue`` are answered."""
        response = self._library.QuerySampleResponse
        self._library.QuerySamplesComplete([response(sample.id, 0, 0) for sample in samples])

    def _log_into(self, folder: str) -> Any:
        settings = self._library.LogSettings()
        output = self._library.LogOutputSettings()
        output.outdir = folder
        settings.log_output = output
        settings.log_mode = self._library.LoggingMode.EndOfTestOnly  # writing would disturb what is timed
        settings.enable_trace = True
        return settings


def _nothing(*_: object) -> None:
    """Stand for a step that has nothing to do: inputs are in memory, and no query waits to be flushed."""


def _read_trace(path: Path) -> tuple[Array, Array]:
    """Arrivals and latencies. Events are read line by line, since the file as a whole may be invalid JSON."""
    lines = path.read_text(encoding="utf-8").splitlines()
    events = (json.loads(line.rstrip(",")) for line in lines if line.startswith('{"name":"Sample",'))
    begun = [event for event in events if event["ph"] == "b"]
    begun.sort(key=lambda event: event["args"]["sample_seq"])
    arrivals = np.array([event["ts"] for event in begun]) * 1e-6
    latencies = np.array([event["args"]["complete_ns"] for event in begun]) * 1e-9
    return arrivals - arrivals[0], latencies
