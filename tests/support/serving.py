"""Fakes of what measures settings and serves searches, so that results are exact and quick."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from petra_optuna.errors import MeasurementFailed
from petra_optuna.inference import server_process
from petra_optuna.measurement import (
    InferenceSetting,
    Measurement,
    RequestRefused,
    SettingMeasurement,
)
from petra_optuna.measurement.energy import estimator

CallMs = Callable[[InferenceSetting], float]
Fails = Callable[[InferenceSetting], bool]


def never(setting: InferenceSetting) -> bool:
    """No setting fails."""
    return False


@dataclasses.dataclass(frozen=True)
class Served:
    """A file whose call takes a fixed part and a part for each sample, which threads share.

    Attributes:
        fixed_ms: Milliseconds of any call.
        sample_ms: Milliseconds of a sample on one thread.
        serial: Share of a sample that threads cannot share (Amdahl).
        cache: Batch size from which a sample takes half as long again.
        runtime_factor: Runtime -> factor of its time; 1 where it is missing.
    """

    fixed_ms: float = 0.1
    sample_ms: float = 0.2
    serial: float = 0.2
    cache: int = 1000
    runtime_factor: tuple[tuple[str, float], ...] = ()

    def __call__(self, setting: InferenceSetting) -> float:
        sample = self.sample_ms * (self.serial + (1 - self.serial) / setting.threads)
        slow = 1.5 if setting.batch > self.cache else 1.0
        factor = dict(self.runtime_factor).get(setting.runtime, 1.0)
        return factor * (self.fixed_ms * setting.threads + sample * setting.batch * slow)


class FakeProcess:
    """Stands in for ``SettingProcess``: measures by a formula and counts.

    Args:
        call_ms: Milliseconds of a call in a setting.
        fails: Settings that cannot be measured.
        energy: Name of an estimator (``measurement.estimator``) of a sample's energy; None for none.
            Nothing counts it where it is ``counters``.
        opens: Whether the device's memory holds the file.
        broken: Whether no memory would hold it.
    """

    def __init__(
        self,
        call_ms: CallMs,
        fails: Fails = never,
        energy: str | None = None,
        opens: bool = True,
        broken: bool = False,
    ) -> None:
        self.energy = energy
        self.opens = opens
        self.broken = broken
        self.call_ms = call_ms
        self.fails = fails
        self.measured: list[InferenceSetting] = []

    def measure(self, setting: InferenceSetting) -> SettingMeasurement:
        self.measured.append(setting)
        if self.fails(setting):
            raise MeasurementFailed(f"batch {setting.batch} does not fit")
        call_ms = self.call_ms(setting)
        measured = setting_measurement(setting, call_ms, self.anchor_ms())
        if self.energy is None:
            return measured
        joules = call_ms / 1e3 * setting.threads / setting.batch
        return dataclasses.replace(measured, energy_j=joules, energy_source=estimator(self.energy).source)

    def anchor_ms(self) -> float:
        if not self.opens:
            raise MeasurementFailed("std::bad_alloc")
        if self.energy == "counters":
            raise MeasurementFailed("energy cannot be an objective here: nothing counts it")
        return self.call_ms(InferenceSetting())

    def peak_memory(self, setting: InferenceSetting) -> int:
        return 1_000_000 + 10_000 * setting.batch

    def runs_without_limit(self) -> bool:
        return not self.broken

    def __enter__(self) -> FakeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def setting_measurement(setting: InferenceSetting, call_ms: float, anchor_ms: float) -> SettingMeasurement:
    """What measuring a setting would say of these times."""
    ratio = call_ms / anchor_ms
    call = Measurement(
        ratio=ratio,
        ratio_low=ratio * 0.99,
        ratio_high=ratio * 1.01,
        pairs=4,
        calls_per_block=1,
        batch=setting.batch,
        threads=setting.threads,
        candidate_ms=call_ms,
        baseline_ms=anchor_ms,
        spread=0.0,
        candidate_p95_ms=call_ms,
        baseline_p95_ms=anchor_ms,
    )
    return SettingMeasurement(setting, call)


class ChildInThisProcess:
    """Stands in for the inference server's process: the same code, run by the server's own thread."""

    def __init__(self, command: Sequence[str]) -> None:
        self._server = server_process._Server()

    def ask(self, request: dict[str, Any], timeout_s: float) -> Any:
        answer = self._server.answer(request)
        if "error" in answer:
            raise RequestRefused(answer["error"])
        return answer["result"]

    def kill(self) -> None:
        self._server.close()


@contextlib.contextmanager
def fake_servers(call_ms: CallMs, fails: Fails = never) -> Iterator[list[Path]]:
    """Let inference servers search in this process and measure by a formula; gives the searched files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("petra_optuna.inference.server.Child", ChildInThisProcess)
        yield fake_settings(patch, call_ms, fails)


def fake_settings(patch: Any, call_ms: CallMs, fails: Fails = never) -> list[Path]:
    """Let ``InferenceTuner`` measure by a formula; the list holds the files of the searches."""
    files: list[Path] = []

    def process(
        file: Path, *_: Any, energy: str | None, memory_limit_bytes: int | None, **__: Any
    ) -> FakeProcess:
        files.append(file)
        too_large = memory_limit_bytes is not None and file.stat().st_size > memory_limit_bytes
        return FakeProcess(call_ms, fails, energy, opens=not too_large)

    patch.setattr("petra_optuna.inference.tuner.SettingProcess", process)
    return files
