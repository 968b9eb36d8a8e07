"""Measures settings of one file in child processes, one for each number of cores."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from petra_optuna.errors import MeasurementFailed
from petra_optuna.measurement.child import Child, RequestRefused
from petra_optuna.measurement.feeds import write_feeds
from petra_optuna.measurement.machine_lock import MachineLock
from petra_optuna.measurement.process import TIMEOUT_S, WORKER
from petra_optuna.measurement.profile import DeviceProfile
from petra_optuna.measurement.protocol import Schedule
from petra_optuna.measurement.setting import InferenceSetting, SettingMeasurement
from petra_optuna.measurement.setting_bench import SETTING_SCHEDULE
from petra_optuna.scratch import scratch_folder


class SettingProcess:
    """Measures settings of one file; a child starts on demand, and again after a crash.

    Args:
        file: Path of the file, which must stay there.
        feeds: Sample inputs by name, batch first; repeated up to the batch sizes.
        cores: Numbers of the cores that settings may use; a setting of ``n`` cores gets the last ``n``.
        device: ``cpu`` or ``cuda:N``.
        memory_limit_bytes: Most private memory that a child may add once its runtime is loaded; None for no
            limit.
        energy: ``counters`` or an estimator (``energy.estimator``); None where energy is not asked for.
        schedule: Lengths and numbers of the measured blocks.
        timeout_s: Longest time in seconds of opening a file and calling it for the first time.
        worker: Command of the child; another one only in tests.
    """

    def __init__(
        self,
        file: Path,
        feeds: Mapping[str, np.ndarray],
        cores: Sequence[int],
        *,
        device: str = "cpu",
        memory_limit_bytes: int | None = None,
        energy: str | None = None,
        schedule: Schedule = SETTING_SCHEDULE,
        timeout_s: float = TIMEOUT_S,
        worker: Sequence[str] = WORKER,
    ) -> None:
        self._cores = tuple(cores)
        self._device = device
        self._limit = memory_limit_bytes
        self._timeout_s = timeout_s
        self._worker = tuple(worker)
        self._children: dict[int, Child] = {}
        self._folder = scratch_folder("feeds")
        self._lock = MachineLock()
        write_feeds(Path(self._folder.name), feeds)
        self._opening = {
            "command": "open_settings",
            "path": str(file.resolve()),
            "feeds": self._folder.name,
            "device": device,
            "schedule": dataclasses.asdict(schedule),
            "energy": energy,
        }

    def measure(self, setting: InferenceSetting) -> SettingMeasurement:
        """Time of a call against the anchor's, and the energy of a sample where it is asked for.

        Raises:
            MeasurementFailed: When the file cannot be run so, crashes the runtime, takes too long, or needs
                more memory than there is.
        """
        answer = self._ask(setting.cores, {"command": "setting", "setting": setting.to_dict()})
        return SettingMeasurement.from_dict(answer)

    def anchor_ms(self) -> float:
        """Milliseconds of a call at batch 1 with one thread.

        Raises:
            MeasurementFailed: When the file cannot be run.
        """
        return float(self._ask(1, {"command": "anchor"}))

    def call_seconds(self, setting: InferenceSetting, calls: int) -> list[float]:
        """Seconds of each of so many calls by the clock alone.

        Raises:
            MeasurementFailed: When the file cannot be run so.
        """
        request = {"command": "calls", "setting": setting.to_dict(), "calls": calls}
        return [float(seconds) for seconds in self._ask(setting.cores, request)]

    def peak_memory(self, setting: InferenceSetting) -> int | None:
        """Most bytes that loading and running the file so adds to a process of its own.

        None where the system does not count them.

        Raises:
            MeasurementFailed: When the file cannot be run so.
        """
        profile = dataclasses.replace(
            DeviceProfile.named(self._device),
            threads=setting.threads,
            latency_batch=setting.batch,
            throughput_batches=(setting.batch,),
            affinity=self._cores[-setting.cores :],
            runtime=setting.runtime,
        )
        request = {
            "command": "peak_memory",
            "path": self._opening["path"],
            "runtime": setting.runtime,
            "feeds": self._folder.name,
            "profile": profile.to_dict(),
            "limit": None,
        }
        with self._lock:
            child = Child(self._worker)
            try:
                peak: int | None = child.ask(request, self._timeout_s)
            except RequestRefused as error:
                raise MeasurementFailed(str(error)) from error
            finally:
                child.kill()
        return peak

    def runs_without_limit(self) -> bool:
        """Whether the file opens and runs on one core where its memory has no limit."""
        with self._lock:
            try:
                child = self._opened(1, limit=None)
            except MeasurementFailed:
                return False
            try:
                child.ask({"command": "anchor"}, self._timeout_s)
            except (MeasurementFailed, RequestRefused):
                return False
            finally:
                child.kill()
        return True

    def close(self) -> None:
        """End the children and remove the samples."""
        for child in self._children.values():
            child.kill()
        self._children.clear()
        self._folder.cleanup()

    def __enter__(self) -> SettingProcess:
        """The same object; nothing is started yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _ask(self, cores: int, request: dict[str, Any]) -> Any:
        if cores > len(self._cores):
            raise MeasurementFailed(
                f"a setting has {cores} cores, and there are {len(self._cores)} for it here"
            )
        with self._lock:
            child = self._children.pop(cores, None) or self._opened(cores, self._limit)
            try:
                answer = child.ask(request, self._timeout_s)
                self._children[cores] = child  # after anything else than an answer it cannot be trusted
            except RequestRefused as error:
                self._children[cores] = child
                raise MeasurementFailed(str(error)) from error
            finally:
                if cores not in self._children:
                    child.kill()
        return answer

    def _opened(self, cores: int, limit: int | None) -> Child:
        """A child that has opened the file on so many cores; one that could not is of no use."""
        child = Child(self._worker)
        opened = False
        try:
            child.ask({**self._opening, "cores": self._cores[-cores:], "limit": limit}, self._timeout_s)
            opened = True
        except RequestRefused as error:
            raise MeasurementFailed(str(error)) from error
        finally:
            if not opened:
                child.kill()
        return child
