"""What the measuring process measures with: the open baseline, its batches and its counters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from petra_optuna.measurement.energy import (
    Counter,
    compare_energy,
    energy_alone,
    expected_energy_s,
    find_counter,
)
from petra_optuna.measurement.load import CoreWaits, ForeignLoad
from petra_optuna.measurement.open_file import OpenFile
from petra_optuna.measurement.profile import DeviceProfile
from petra_optuna.measurement.protocol import Clock, Schedule, compare, time_alone
from petra_optuna.measurement.record import Baseline, Energy, FileMeasurement, Measurement
from petra_optuna.runtimes import runtime

Announce = Callable[[float], None]
"""Tells the parent that work goes on, and the seconds that the next step is expected to take."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """The loaded baseline and all that a measurement against it needs.

    Attributes:
        profile: Device and how it is used.
        schedule: Lengths and numbers of the measured blocks.
        announce: Called before each step. Opening a file takes as long as it takes: 0 seconds are expected.
        counter: Counter of energy, or the reason why there is none.
        waits: Reader of the seconds that this thread waited for a core.
        baselines: Batch size -> the open baseline. Every size has its own, because a session that has run a
            large batch keeps the memory for it.
    """

    profile: DeviceProfile
    schedule: Schedule
    announce: Announce
    counter: Counter | str
    waits: CoreWaits
    baselines: Mapping[int, OpenFile]

    @classmethod
    def load(
        cls,
        baseline: Path,
        samples: Mapping[str, np.ndarray],
        profile: DeviceProfile,
        schedule: Schedule,
        announce: Announce,
    ) -> Bench:
        """Open the baseline at each batch size of the profile.

        Raises:
            RuntimeFailed: When the runtime cannot load or run it.
        """
        baselines = {}
        for size in dict.fromkeys((profile.latency_batch, *profile.throughput_batches)):
            announce(0.0)
            baselines[size] = OpenFile.load(
                baseline,
                batch_of(samples, size),
                profile.threads,
                profile.baseline_place,
                most_copies=schedule.max_pairs,
            )
        counter = find_counter(runtime(profile.runtime).device_uuid(profile.device))
        return cls(profile, schedule, announce, counter, CoreWaits(), baselines)

    def measure_baseline(self) -> dict[str, Any]:
        """The ``Baseline`` in its JSON form, without its peak memory."""
        seconds = {size: self._time_alone(baseline) for size, baseline in self.baselines.items()}
        return Baseline(
            latency_ms=seconds[self.profile.latency_batch] * 1e3,
            throughput_per_s={size: size / seconds[size] for size in self.profile.throughput_batches},
            energy_j=self._baseline_energy(),
            energy_source=self.counter if isinstance(self.counter, str) else self.counter.source,
        ).to_dict()

    def measure(self, path: Path) -> dict[str, Any]:
        """The ``FileMeasurement`` of a file in its JSON form, without its peak memory."""
        measurements: dict[int, Measurement] = {}
        energy = None
        for size, baseline in self.baselines.items():
            self.announce(0.0)
            candidate = OpenFile.load(
                path,
                baseline.feeds,
                self.profile.threads,
                self.profile.place,
                most_copies=self.schedule.max_pairs,
            )
            measurements[size] = self._compare(candidate, size)
            if size == self.profile.throughput_batches[0]:
                energy = self._energy(candidate, size)
        return FileMeasurement(
            latency=measurements[self.profile.latency_batch],
            throughput=tuple(measurements[size] for size in self.profile.throughput_batches),
            energy=energy,
        ).to_dict()

    def _compare(self, candidate: OpenFile, size: int) -> Measurement:
        baseline = self.baselines[size]
        self.announce(self.schedule.expected_s(candidate.call_s, baseline.call_s))
        load = ForeignLoad()
        measurement = compare(
            candidate.side(),
            baseline.side(),
            self._clock(),
            batch=size,
            threads=self.profile.threads,
            waited=self._waited,
            schedule=self.schedule,
        )
        package = runtime(self.profile.runtime).package
        version = f"{package} {metadata.version(package)}"
        return dataclasses.replace(measurement, foreign_cores=load.cores(), runtime=version)

    def _time_alone(self, baseline: OpenFile) -> float:
        self.announce(self.schedule.expected_s(baseline.call_s))
        return time_alone(baseline.side(), self._clock(), waited=self._waited, schedule=self.schedule)

    def _energy(self, candidate: OpenFile, size: int) -> Energy | None:
        """Energy of the file against the baseline; None where nothing counts it."""
        if isinstance(self.counter, str):
            return None
        baseline = self.baselines[size]
        self.announce(expected_energy_s(candidate.call_s, baseline.call_s))
        return compare_energy(candidate.call, baseline.call, self.counter, self._clock(), size)

    def _baseline_energy(self) -> float | None:
        """Joules of one sample of the baseline; None where nothing counts them."""
        if isinstance(self.counter, str):
            return None
        size = self.profile.throughput_batches[0]
        baseline = self.baselines[size]
        self.announce(expected_energy_s(baseline.call_s))
        return energy_alone(baseline.call, self.counter, self._clock(), size)

    def _clock(self) -> Clock:
        name, device = self.profile.baseline_place
        return runtime(name).clock(device)

    def _waited(self) -> float:
        """Seconds waited for a core so far; 0 on a GPU, where work goes on meanwhile."""
        return self.waits.seconds() if self.profile.name == "cpu" else 0.0


def batch_of(samples: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """A batch of ``size`` samples, repeated where there are fewer."""
    return {key: np.ascontiguousarray(array[np.arange(size) % len(array)]) for key, array in samples.items()}
