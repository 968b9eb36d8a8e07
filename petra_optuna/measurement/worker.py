"""The measuring child: ``python -m petra_optuna.measurement.worker``.

It reads one JSON request a line from stdin and answers each with one JSON line on its first stdout::

    {"command": "open", "baseline": PATH, "feeds": FOLDER, "profile": {...}, "schedule": {...}}
    {"command": "baseline"}
    {"command": "measure", "path": PATH}
    {"command": "peak_memory", "path": PATH, "runtime": NAME, "feeds": FOLDER, "profile": {...}}

``open`` loads the baseline, whose sessions stay open, so that ``measure`` loads the candidate only.
``baseline`` measures the baseline alone, ``measure`` a candidate against it. ``peak_memory`` is for a child
that does nothing else. An answer is ``{"result": ...}`` or ``{"error": TEXT}``. The child ends when its stdin
does.
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
    """The loaded baseline and all that a measurement against it needs.

    Attributes:
        profile: Device and how it is used.
        schedule: Lengths and numbers of the measured blocks.
        counter: Counter of energy, or the reason why there is none.
        waits: Reader of the seconds that this thread waited for a core.
        baselines: Batch size -> copies of the baseline's session. Every size has its own, because a session
            that has run a large batch keeps the memory for it.
        batches: Batch size -> feeds of one call.
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
        profile = _apply_profile(request)
        sizes = dict.fromkeys((profile.latency_batch, *profile.throughput_batches))
        samples = load_feeds(Path(request["feeds"]))
        batches = {size: _batch(samples, size) for size in sizes}
        baselines = {
            size: _open_copies(request["baseline"], feeds, profile.threads, profile.baseline_place)
            for size, feeds in batches.items()
        }
        schedule = Schedule(**request["schedule"])
        return cls(profile, schedule, find_counter(profile.name), CoreWaits(), baselines, batches)

    def measure_baseline(self) -> dict[str, Any]:
        """The ``Baseline`` in its JSON form, without its peak memory."""
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
        """Seconds waited for a core so far; 0 on a GPU, where work goes on meanwhile."""
        return self.waits.seconds() if self.profile.name == "cpu" else 0.0

    def measure(self, path: str) -> dict[str, Any]:
        """The ``FileMeasurement`` of a file in its JSON form, without its peak memory."""
        measurements: dict[int, Measurement] = {}
        energy = None
        for size, feeds in self.batches.items():
            sessions = _open_copies(path, feeds, self.profile.threads, self.profile.place)
            candidates = _runners(sessions, feeds)
            measurements[size] = self._compare(candidates, size)
            if not isinstance(self.counter, str) and size == self.profile.throughput_batches[0]:
                baseline = _runners(self.baselines[size], feeds)[0]
                energy = compare_energy(candidates[0], baseline, self.counter, self._clock(), size)
        return FileMeasurement(
            latency=measurements[self.profile.latency_batch],
            throughput=tuple(measurements[size] for size in self.profile.throughput_batches),
            energy=energy,
        ).to_dict()

    def _compare(self, candidates: list[Callable[[], object]], size: int) -> Measurement:
        load = ForeignLoad()
        measurement = compare(
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
        return dataclasses.replace(measurement, foreign_cores=load.cores(), runtime=version)


def peak_memory(request: dict[str, Any]) -> int | None:
    """Most bytes that loading and running a file at the latency batch adds to this process.

    None for a device with a memory of its own. The runtime itself does not count.
    """
    profile = _apply_profile(request)
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
    server = _Server()
    for line in requests:
        answers.write(json.dumps(server.answer(json.loads(line))) + "\n")
        answers.flush()


class _Server:
    """Answers requests, the later ones with the baseline that ``open`` loaded."""

    def __init__(self) -> None:
        self._bench: Bench | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"result": self._result(request)}
        except (RuntimeFailed, MeasurementFailed) as error:
            return {"error": one_line(error)}

    def _result(self, request: dict[str, Any]) -> object:
        command = request["command"]
        if command == "open":
            self._bench = Bench.open(request)
            return None
        if command == "peak_memory":
            return peak_memory(request)
        if self._bench is None:
            raise ValueError("the first request must be 'open'")
        if command == "baseline":
            return self._bench.measure_baseline()
        return self._bench.measure(request["path"])


def load_feeds(folder: Path) -> dict[str, np.ndarray]:
    """Arrays by input name, as ``MeasuringProcess`` writes them: names in JSON, arrays by number."""
    names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
    return {name: np.load(folder / f"{index}.npy") for index, name in enumerate(names)}


def _apply_profile(request: dict[str, Any]) -> DeviceProfile:
    """Make this process keep to the cores and memory of the request's profile, and return the profile."""
    profile = DeviceProfile.from_dict(request["profile"])
    _keep_to_cores(profile)
    if profile.memory_limit_bytes is not None:
        _limit_memory(profile.memory_limit_bytes)
    return profile


def _batch(samples: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """A batch of ``size`` samples, repeated where there are fewer."""
    return {key: np.ascontiguousarray(array[np.arange(size) % len(array)]) for key, array in samples.items()}


def _open_copies(
    path: str, feeds: dict[str, np.ndarray], threads: int, place: tuple[str, str]
) -> list[Session]:
    """An odd number of sessions of the file: several where calls are short, one where they are long.

    The place of a session in memory changes the time of calls of microseconds. It does not matter where calls
    are long or the file is large, and there copies would fill the memory.
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


def _keep_to_cores(profile: DeviceProfile) -> None:
    """Keep this process to the profile's cores, else to the last ones: the first serve most interrupts.

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


def _limit_memory(limit: int) -> None:
    """Make allocations beyond ``limit`` bytes of private memory fail from now on.

    Raises:
        RuntimeFailed: When this system cannot do that.
    """
    try:
        import resource  # not on every system
    except ImportError as error:
        raise RuntimeFailed("this system cannot limit a process's memory as the device asks") from error
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def main() -> None:
    """Serve on stdin and a private copy of stdout: native code may print on the original."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    gc.disable()
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
