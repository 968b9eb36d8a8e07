"""What the measuring process measures settings with: one file, open as its own anchor."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from petra_optuna.errors import RuntimeFailed
from petra_optuna.measurement.bench import Announce, batch_of
from petra_optuna.measurement.energy import Counter, energy_alone, expected_energy_s
from petra_optuna.measurement.load import CoreWaits, ForeignLoad
from petra_optuna.measurement.open_file import OpenFile
from petra_optuna.measurement.protocol import Schedule, compare, time_alone
from petra_optuna.measurement.setting import InferenceSetting, SettingMeasurement
from petra_optuna.runtimes import runtime

SETTING_SCHEDULE = Schedule(
    block_s=0.02, settle_s=0.004, min_pairs=4, max_pairs=16, tolerance=0.04, max_s=3.0
)
"""A search measures many settings of one file, so each is measured more shortly than a file of a front."""


@dataclasses.dataclass(frozen=True)
class SettingBench:
    """One file and all that measuring its settings needs.

    Attributes:
        path: The file.
        samples: Inputs by name, repeated up to the batch sizes.
        place: Runtime and device of the anchor.
        schedule: Lengths and numbers of the measured blocks.
        announce: Called before each step with the seconds that it is expected to take.
        counter: Counter of energy, or the reason why there is none; empty where nobody asked.
        waits: Reader of the seconds that this thread waited for a core.
        anchor: The file at batch 1 with one thread.
    """

    path: Path
    samples: Mapping[str, np.ndarray]
    place: tuple[str, str]
    schedule: Schedule
    announce: Announce
    counter: Counter | str
    waits: CoreWaits
    anchor: OpenFile

    @classmethod
    def load(
        cls,
        path: Path,
        samples: Mapping[str, np.ndarray],
        place: tuple[str, str],
        schedule: Schedule,
        announce: Announce,
        counter: Counter | str = "",
    ) -> SettingBench:
        """Open the file as its own anchor; the arguments are the attributes.

        Raises:
            RuntimeFailed: When the runtime cannot load or run it.
        """
        announce(0.0)
        anchor = OpenFile.load(path, batch_of(samples, 1), 1, place, most_copies=schedule.max_pairs)
        return cls(path, samples, place, schedule, announce, counter, CoreWaits(), anchor)

    def measure_anchor(self) -> float:
        """Milliseconds of a call at batch 1 with one thread."""
        self.announce(self.schedule.expected_s(self.anchor.call_s))
        seconds = time_alone(
            self.anchor.side(), time.perf_counter, waited=self.waits.seconds, schedule=self.schedule
        )
        return seconds * 1e3

    def measure(self, setting: InferenceSetting) -> dict[str, Any]:
        """The ``SettingMeasurement`` of a setting in its JSON form.

        Raises:
            RuntimeFailed: When the runtime cannot run the file so, for example for want of memory.
        """
        candidate = self._open(setting)
        self.announce(self.schedule.expected_s(candidate.call_s, self.anchor.call_s))
        load = ForeignLoad()
        call = compare(
            candidate.side(),
            self.anchor.side(),
            runtime(setting.runtime).clock(self.place[1]),
            batch=setting.batch,
            threads=setting.threads,
            waited=self.waits.seconds,
            schedule=self.schedule,
        )
        package = runtime(setting.runtime).package
        call = dataclasses.replace(
            call, foreign_cores=load.cores(), runtime=f"{package} {metadata.version(package)}"
        )
        return SettingMeasurement(setting, call, *self._energy(candidate, setting.batch)).to_dict()

    def call_seconds(self, setting: InferenceSetting, calls: int) -> list[float]:
        """Seconds of so many calls by the clock alone: with everything that the machine did to each."""
        candidate = self._open(setting)
        self.announce(candidate.call_s * calls)
        clock = runtime(setting.runtime).clock(self.place[1])
        candidate.call()
        seconds = []
        before = clock()
        for _ in range(calls):
            candidate.call()
            now = clock()
            seconds.append(now - before)
            before = now
        return seconds

    def _open(self, setting: InferenceSetting) -> OpenFile:
        self.announce(0.0)
        try:
            feeds = batch_of(self.samples, setting.batch)
            return OpenFile.load(
                self.path,
                feeds,
                setting.threads,
                (setting.runtime, self.place[1]),
                most_copies=self.schedule.max_pairs,
            )
        except MemoryError as error:
            raise RuntimeFailed("the device's memory does not hold the batch") from error

    def _energy(self, candidate: OpenFile, batch: int) -> tuple[float | None, str]:
        """Joules of a sample and what counted them."""
        if isinstance(self.counter, str):
            return None, self.counter
        self.announce(expected_energy_s(candidate.call_s))
        clock = time.perf_counter
        return energy_alone(candidate.call, self.counter, clock, batch), self.counter.source
