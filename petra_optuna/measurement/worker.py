"""The measuring child: ``python -m petra_optuna.measurement.worker``.

Reads one JSON request a line from stdin and answers each with one JSON line on what was stdout::

    {"command": "open", "baseline": PATH, "feeds": FOLDER, "profile": {...}, "schedule": {...}}
    {"command": "baseline"}
    {"command": "measure", "path": PATH}
    {"command": "peak_memory", "path": PATH, "runtime": NAME, "feeds": FOLDER, "profile": {...}}

The last one is for a child that does nothing else. An answer is ``{"result": ...}`` or ``{"error": TEXT}``.
The child ends with its stdin. It holds the baseline's sessions open, so that a measurement opens the
candidate only.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from petra_optuna.errors import MeasurementFailed, RuntimeFailed, one_line
from petra_optuna.measurement.energy import Counter, compare_energy, energy_alone, find_counter
from petra_optuna.measurement.load import CoreWaits, ForeignLoad
from petra_optuna.measurement.memory import PeakMemory
from petra_optuna.measurement.profile import DeviceProfile
from petra_optuna.measurement.protocol import Clock, Schedule, compare, time_alone
from petra_optuna.measurement.record import Baseline, FileMeasurement, Measurement
from petra_optuna.runtimes import Session, runtime

_COPIES = 7
_COPIES_BYTES = 80_000_000
_SHORT_CALL_S = 0.002
_RUNS_FOR_MEMORY = 3


@dataclasses.dataclass(frozen=True)
class Bench:
    """The baseline, ready to run, and what it is run with.

    Every batch size has sessions of its own: one that has run a large batch keeps the memory for it.
    """

    profile: DeviceProfile
    schedule: Schedule
    counter: Counter | str
    waits: CoreWaits
    baselines: dict[int, list[Session]]
    batches: dict[int, dict[str, np.ndarray]]

    @classmethod
    def open(cls, request: dict[str, Any]) -> Bench:
        """Load the baseline and fill the batches by repeating the samples."""
        profile = _settled(request)
        sizes = dict.fromkeys((profile.latency_batch, *profile.throughput_batches))
        samples = load_feeds(Path(request["feeds"]))
        batches = {size: _batch(samples, size) for size in sizes}
        baselines = {
            size: _sessions(request["baseline"], feeds, profile.threads, profile.baseline_place)
            for size, feeds in batches.items()
        }
        schedule = Schedule(**request["schedule"])
        return cls(profile, schedule, find_counter(profile.name), CoreWaits(), baselines, batches)

    def measure_baseline(self) -> dict[str, Any]:
        """Absolute figures of the baseline alone."""
        seconds = {
            size: time_alone(
                _runners(self.baselines[size], feeds),
                self._clock(),
                waited=self._waited,
                schedule=self.schedule,
            )
            for size, feeds in self.batches.items()
        }
        energy = None
        if not isinstance(self.counter, str):
            size = self.profile.throughput_batches[0]
            call = _runners(self.baselines[size], self.batches[size])[0]
            energy = energy_alone(call, self.counter, self._clock(), size)
        return Baseline(
            latency_ms=seconds[self.profile.latency_batch] * 1e3,
            throughput_per_s={size: size / seconds[size] for size in self.profile.throughput_batches},
            energy_j=energy,
            energy_source=self.counter if isinstance(self.counter, str) else self.counter.source,
        ).to_dict()

    def _clock(self) -> Clock:
        name, device = self.profile.baseline_place
        return runtime(name).clock(device)

    def _waited(self) -> float:
        """On a device of its own work goes on while this process waits for a core."""
        return self.waits.seconds() if self.profile.name == "cpu" else 0.0

    def measure(self, path: str) -> dict[str, Any]:
        """The candidate against the baseline at every batch size."""
        found: dict[int, Measurement] = {}
        energy = None
        for size, feeds in self.batches.items():
            candidates = _runners(_sessions(path, feeds, self.profile.threads, self.profile.place), feeds)
            found[size] = self._compare(candidates, size)
            if not isinstance(self.counter, str) and size == self.profile.throughput_batches[0]:
                baseline = _runners(self.baselines[size], feeds)[0]
                energy = compare_energy(candidates[0], baseline, self.counter, self._clock(), size)
        throughput = tuple(found[size] for size in self.profile.throughput_batches)
        return FileMeasurement(found[self.profile.latency_batch], throughput, energy=energy).to_dict()

    def _compare(self, candidates: list[Callable[[], object]], size: int) -> Measurement:
        load = ForeignLoad()
        found = compare(
            candidates,
            _runners(self.baselines[size], self.batches[size]),
            self._clock(),
            batch=size,
            threads=self.profile.threads,
            waited=self._waited,
            schedule=self.schedule,
        )
        package = runtime(self.profile.runtime).package
        version = f"{package} {metadata.version(package)}"
        return dataclasses.replace(found, foreign_cores=load.cores(), runtime=version)


def peak_memory(request: dict[str, Any]) -> int | None:
    """What loading and running a file at the latency batch adds to this process, at its highest, in bytes.

    None for a device with a memory of its own. The runtime itself does not count.
    """
    profile = _settled(request)
    if profile.name != "cpu":
        return None
    feeds = _batch(load_feeds(Path(request["feeds"])), profile.latency_batch)
    chosen = runtime(request["runtime"])
    importlib.import_module(chosen.package)
    memory = PeakMemory()
    session = chosen.open(Path(request["path"]), profile.threads)
    for _ in range(_RUNS_FOR_MEMORY):
        session.run(feeds)
    return memory.bytes()


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until there are no more."""
    bench: Bench | None = None
    for line in requests:
        request = json.loads(line)
        result: object = None
        try:
            if request["command"] == "open":
                bench = Bench.open(request)
            elif request["command"] == "peak_memory":
                result = peak_memory(request)
            elif bench is None:
                raise ValueError("the first request must be 'open'")
            elif request["command"] == "baseline":
                result = bench.measure_baseline()
            else:
                result = bench.measure(request["path"])
        except (RuntimeFailed, MeasurementFailed) as error:
            answers.write(json.dumps({"error": one_line(error)}) + "\n")
        else:
            answers.write(json.dumps({"result": result}) + "\n")
        answers.flush()


def load_feeds(folder: Path) -> dict[str, np.ndarray]:
    """Arrays by input name, as ``MeasuringProcess`` writes them: names in JSON, arrays by number."""
    names = json.loads((folder / "names.json").read_text())
    return {name: np.load(folder / f"{index}.npy") for index, name in enumerate(names)}


def _settled(request: dict[str, Any]) -> DeviceProfile:
    """The profile, after this process keeps to its cores and memory."""
    profile = DeviceProfile.from_dict(request["profile"])
    _pin(profile)
    if profile.memory_limit_bytes is not None:
        _limit_memory(profile.memory_limit_bytes)
    return profile


def _batch(samples: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """So many samples, repeated where there are fewer."""
    return {key: np.ascontiguousarray(array[np.arange(size) % len(array)]) for key, array in samples.items()}


def _sessions(path: str, feeds: dict[str, np.ndarray], threads: int, place: tuple[str, str]) -> list[Session]:
    """Copies of the file, an odd number: several where calls are short, one where they are long.

    The place of a session in memory tells in calls of microseconds; where calls are long or the file is large
    it does not, and copies would fill the memory.
    """
    name, device = place
    chosen = runtime(name)
    first = chosen.open(Path(path), threads, device)
    first.run(feeds)
    began = time.perf_counter()
    first.run(feeds)
    if time.perf_counter() - began > _SHORT_CALL_S:
        return [first]
    count = min(_COPIES, max(1, _COPIES_BYTES // Path(path).stat().st_size))
    return [first, *(chosen.open(Path(path), threads, device) for _ in range((count - 1) // 2 * 2))]


def _runners(sessions: list[Session], feeds: dict[str, np.ndarray]) -> list[Callable[[], object]]:
    return [functools.partial(session.run, feeds) for session in sessions]


def _pin(profile: DeviceProfile) -> None:
    """Keep to the profile's cores, else to the last ones; the first serve most interrupts.

    Raises:
        RuntimeFailed: When the profile names cores and this system or process may not keep to them.
    """
    named, threads = profile.affinity, profile.threads
    if not hasattr(os, "sched_setaffinity"):
        if named is not None:
            raise RuntimeFailed("this system cannot keep a process to the cores that the device names")
        return
    cores = sorted(os.sched_getaffinity(0))
    try:
        os.sched_setaffinity(0, cores[-threads:] if named is None else named)
    except OSError as error:
        raise RuntimeFailed(
            f"the measuring process cannot keep to cores {named}: {one_line(error)}"
        ) from error


def _limit_memory(most: int) -> None:
    """Allocations beyond fail from now on.

    Raises:
        RuntimeFailed: When this system cannot do that.
    """
    try:
        import resource  # not on every system
    except ImportError as error:
        raise RuntimeFailed("this system cannot limit a process's memory as the device asks") from error
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def main() -> None:
    """Serve on stdin and a private copy of stdout: native code may print on the original."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    gc.disable()
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
