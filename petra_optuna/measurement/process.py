"""The measuring process: a child that may crash or hang without taking the study with it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from petra_optuna.errors import MeasurementFailed
from petra_optuna.measurement.child import Child, RequestRefused
from petra_optuna.measurement.feeds import write_feeds
from petra_optuna.measurement.machine_lock import MachineLock
from petra_optuna.measurement.profile import DeviceProfile
from petra_optuna.measurement.protocol import DEFAULT_SCHEDULE, Schedule
from petra_optuna.measurement.record import Baseline, FileMeasurement
from petra_optuna.scratch import scratch_folder

WORKER = (sys.executable, "-m", "petra_optuna.measurement.worker")
TIMEOUT_S = 300.0


class MeasuringProcess:
    """Measures files against one baseline in a child process.

    The child starts on demand, and again after a crash.

    Args:
        profile: Threads, batch sizes and the candidates' runtime.
        baseline: Path of the original model's FP32 file, which runs in the device's default runtime; the file
            must stay there.
        feeds: Sample inputs by name, batch first; repeated up to the batch sizes.
        timeout_s: Longest time in seconds of opening a file and calling it for the first time. The time that
            the rest may take follows from the first calls; a child that takes longer is killed.
        schedule: Lengths and numbers of the measured blocks.
        worker: Command of the child; another one only in tests.

    Raises:
        ValueError: When ``feeds`` holds no sample.
    """

    def __init__(
        self,
        profile: DeviceProfile,
        baseline: Path,
        feeds: Mapping[str, np.ndarray],
        timeout_s: float = TIMEOUT_S,
        *,
        schedule: Schedule = DEFAULT_SCHEDULE,
        worker: Sequence[str] = WORKER,
    ) -> None:
        if not feeds or min(len(array) for array in feeds.values()) < 1:
            raise ValueError("the measuring process needs at least one sample of every input")
        self._profile = profile
        self._baseline = baseline
        self._timeout_s = timeout_s
        self._schedule = schedule
        self._worker = tuple(worker)
        self._child: Child | None = None
        self._folder = scratch_folder("feeds")
        self._lock = MachineLock()
        write_feeds(Path(self._folder.name), feeds)

    def measure(self, path: Path) -> FileMeasurement:
        """Measure a file: in a process of its own its memory, then its times at each batch size and energy.

        Raises:
            MeasurementFailed: When the file cannot be loaded or run, crashes the runtime, takes too long, or
                needs more memory than the profile allows.
            UserError: When another process keeps this machine from measuring for too long.
        """
        with self._lock:
            memory = self._peak_memory(path, self._profile.place[0], self._profile.memory_limit_bytes)
            answer = self._ask({"command": "measure", "path": str(path.resolve())})
            return dataclasses.replace(FileMeasurement.from_dict(answer), peak_memory_bytes=memory)

    def measure_baseline(self) -> Baseline:
        """Measure the baseline alone: medians over blocks in milliseconds and samples per second.

        The profile's limit of memory is not for the baseline.

        Raises:
            MeasurementFailed: When it cannot be loaded or run, or takes too long.
            UserError: When another process keeps this machine from measuring for too long.
        """
        with self._lock:
            answer = self._ask({"command": "baseline"})
            memory = self._peak_memory(self._baseline, self._profile.baseline_place[0], limit=None)
            return dataclasses.replace(Baseline.from_dict(answer), peak_memory_bytes=memory)

    def close(self) -> None:
        """End the child and remove the samples."""
        if self._child is not None:
            self._child.kill()
            self._child = None
        self._folder.cleanup()

    def __enter__(self) -> MeasuringProcess:
        """The same object; nothing is started yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        child = self._child or self._start()
        self._child = None  # until it has answered: after anything else it cannot be trusted
        try:
            result: dict[str, Any] = child.ask(request, self._timeout_s)
            self._child = child
        except RequestRefused as error:
            self._child = child
            raise MeasurementFailed(str(error)) from error
        finally:
            if self._child is None:
                child.kill()
        return result

    def _peak_memory(self, path: Path, runtime: str, limit: int | None) -> int | None:
        child = Child(self._worker)
        request = {
            "command": "peak_memory",
            "path": str(path.resolve()),
            "runtime": runtime,
            "feeds": self._folder.name,
            "profile": self._profile.to_dict(),
            "limit": limit,
        }
        try:
            peak: int | None = child.ask(request, self._timeout_s)
        except RequestRefused as error:
            reason = str(error) if limit is None else f"{error} (the device's memory limit is {limit} bytes)"
            raise MeasurementFailed(reason) from error
        finally:
            child.kill()
        return peak

    def _start(self) -> Child:
        child = Child(self._worker)
        opened = False
        try:
            child.ask(
                {
                    "command": "open",
                    "baseline": str(self._baseline.resolve()),
                    "feeds": self._folder.name,
                    "profile": self._profile.to_dict(),
                    "schedule": dataclasses.asdict(self._schedule),
                },
                self._timeout_s,
            )
            opened = True
        except RequestRefused as error:
            raise MeasurementFailed(f"the baseline cannot be loaded: {error}") from error
        finally:
            if not opened:
                child.kill()
        return child
