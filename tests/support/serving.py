"""Fakes of what measures settings and serves searches, so that results are exact and quick."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from petra_optuna.errors import MeasurementFailed
from petra_optuna.measurement import InferenceSetting, Measurement, SettingMeasurement

CallMs = Callable[[InferenceSetting], float]


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
        cpu_w: Watts of a busy core, for the energy of a sample.
    """

    def __init__(
        self, call_ms: CallMs, fails: Callable[[InferenceSetting], bool] = lambda setting: False
    ) -> None:
        self.call_ms = call_ms
        self.fails = fails
        self.measured: list[InferenceSetting] = []

    def measure(self, setting: InferenceSetting) -> SettingMeasurement:
        self.measured.append(setting)
        if self.fails(setting):
            raise MeasurementFailed(f"batch {setting.batch} does not fit")
        return setting_measurement(setting, self.call_ms(setting), self.anchor_ms())

    def anchor_ms(self) -> float:
        return self.call_ms(InferenceSetting())

    def peak_memory(self, setting: InferenceSetting) -> int:
        return 1_000_000 + 10_000 * setting.batch

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


def fake_settings(patch: Any, call_ms: CallMs) -> list[Path]:
    """Let ``InferenceTuner`` measure by a formula; the list holds the files of the searches."""
    files: list[Path] = []

    def process(file: Path, *_: Any, **__: Any) -> FakeProcess:
        files.append(file)
        return FakeProcess(call_ms)

    patch.setattr("petra_optuna.inference.tuner.SettingProcess", process)
    return files
