"""Latency and throughput of a file as it is recommended to be served, in place of those of fixed settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from petra_optuna.inference.device import EdgeDevice, serving_cores
from petra_optuna.inference.recommendation import Recommendation
from petra_optuna.inference.tuner import InferenceTuner
from petra_optuna.measurement import DeviceProfile, ShapeMeasurement
from petra_optuna.noise import Reading

_SPEED = ("latency_ms", "throughput_per_s")


@dataclasses.dataclass(frozen=True)
class TunedMeasurement(ShapeMeasurement):
    """What is known of a file, with the speed at which it is served as recommended.

    Attributes:
        answer: How the file is served.
    """

    answer: Recommendation | None = None

    @property
    def values(self) -> dict[str, float]:
        """All values of the file by name; latency and throughput are those of the recommended setting."""
        return super().values | {name: one.value for name, one in self._speed.items()}

    @property
    def known(self) -> dict[str, dict[str, Reading]]:
        """The recommended setting is the one reading, named after its nested study."""
        assert self.answer is not None
        return {self.answer.study: self._speed}

    @property
    def recommendation(self) -> Mapping[str, Any] | None:
        """How the file is served, JSON-ready."""
        assert self.answer is not None
        return self.answer.to_dict()

    @property
    def _speed(self) -> dict[str, Reading]:
        assert self.answer is not None
        return {name: self.answer.expected[name] for name in _SPEED}


@dataclasses.dataclass(frozen=True)
class ServingTuner:
    """Tunes how files are served while a study measures them.

    Attributes:
        tuner: What is searched.
        feeds: Sample inputs by name, batch first.
    """

    tuner: InferenceTuner
    feeds: Mapping[str, np.ndarray]

    def __call__(self, file: Path, measured: ShapeMeasurement) -> TunedMeasurement:
        """The measurement of a file with the speed of its recommended setting.

        Raises:
            MeasurementFailed: When no setting can be measured.
        """
        return TunedMeasurement(
            shape=measured.shape,
            readings=measured.readings,
            taken=measured.taken,
            baseline=measured.baseline,
            answer=self.tuner.recommend(file, self.feeds),
        )


def device_of(profile: DeviceProfile, runtime: str) -> EdgeDevice:
    """The device of a study's profile: settings may use its threads and memory, in one runtime."""
    return EdgeDevice(
        name=profile.device,
        cores=profile.threads,
        memory_bytes=profile.memory_limit_bytes,
        runtimes=(runtime,),
        device=profile.device,
    )


def cores_of(profile: DeviceProfile, device: EdgeDevice) -> tuple[int, ...]:
    """Numbers of the cores of a study's profile."""
    return serving_cores(device) if profile.affinity is None else profile.affinity[-device.cores :]
