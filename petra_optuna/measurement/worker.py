"""The measuring child: ``python -m petra_optuna.measurement.worker``.

Reads one JSON request a line from stdin and answers each with one JSON line on what was stdout::

    {"command": "open", "yardstick": PATH, "feeds": FOLDER, "profile": {...}, "schedule": {...}}
    {"command": "baseline"}
    {"command": "measure", "path": PATH}

An answer is ``{"result": ...}`` or ``{"error": TEXT}``. The child ends with its stdin. It holds the
yardstick's sessions open, so that a measurement opens the candidate only.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from petra_optuna.errors import RuntimeFailed, one_line
from petra_optuna.measurement.load import ForeignLoad
from petra_optuna.measurement.profile import DeviceProfile
from petra_optuna.measurement.protocol import Clock, Schedule, compare, time_alone
from petra_optuna.measurement.record import Measurement
from petra_optuna.runtimes import Session, runtime

_COPIES = 7
_COPIES_BYTES = 80_000_000
_SHORT_CALL_S = 0.002


@dataclasses.dataclass(frozen=True)
class Bench:
    """The yardstick, ready to run, and what it is run with.

    Every batch size has sessions of its own: one that has run a large batch keeps the memory for it.
    """

    profile: DeviceProfile
    schedule: Schedule
    yardsticks: dict[str, list[Session]]
    batches: dict[str, dict[str, np.ndarray]]

    @classmethod
    def open(cls, request: dict[str, Any]) -> Bench:
        """Load the yardstick and fill the batches by repeating the samples."""
        profile = DeviceProfile.from_dict(request["profile"])
        _pin(profile)
        if profile.memory_limit_bytes is not None:
            _limit_memory(profile.memory_limit_bytes)
        samples = load_feeds(Path(request["feeds"]))
        sizes = {"latency": profile.latency_batch, "throughput": profile.throughput_batch}
        batches = {
            name: {key: np.ascontiguousarray(_repeat(array, size)) for key, array in samples.items()}
            for name, size in sizes.items()
        }
        yardsticks = {
            name: _sessions(request["yardstick"], feeds, profile.threads, profile.yardstick_place)
            for name, feeds in batches.items()
        }
        return cls(profile, Schedule(**request["schedule"]), yardsticks, batches)

    def baseline(self) -> dict[str, float]:
        """Absolute figures of the yardstick alone."""
        seconds = {
            name: time_alone(_runners(self.yardsticks[name], feeds), self._clock(), self.schedule)
            for name, feeds in self.batches.items()
        }
        return {
            "latency_ms": seconds["latency"] * 1e3,
            "throughput_per_s": self.profile.throughput_batch / seconds["throughput"],
        }

    def _clock(self) -> Clock:
        name, device = self.profile.yardstick_place
        return runtime(name).clock(device)

    def measure(self, path: str) -> dict[str, dict[str, Any]]:
        """The candidate against the yardstick at both batch sizes."""
        return {name: self._compare(name, path).to_dict() for name in self.batches}

    def _compare(self, name: str, path: str) -> Measurement:
        feeds, threads = self.batches[name], self.profile.threads
        candidates = _runners(_sessions(path, feeds, threads, self.profile.place), feeds)
        load = ForeignLoad()
        found = compare(
            candidates,
            _runners(self.yardsticks[name], feeds),
            self._clock(),
            batch=len(next(iter(feeds.values()))),
            threads=threads,
            schedule=self.schedule,
        )
        package = runtime(self.profile.runtime).package
        version = f"{package} {metadata.version(package)}"
        return dataclasses.replace(found, foreign_cores=load.cores(), runtime=version)


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until there are no more."""
    bench: Bench | None = None
    for line in requests:
        request = json.loads(line)
        result: object = None
        try:
            if request["command"] == "open":
                bench = Bench.open(request)
            elif bench is None:
                raise ValueError("the first request must be 'open'")
            elif request["command"] == "baseline":
                result = bench.baseline()
            else:
                result = bench.measure(request["path"])
        except RuntimeFailed as error:
            answers.write(json.dumps({"error": one_line(error)}) + "\n")
        else:
            answers.write(json.dumps({"result": result}) + "\n")
        answers.flush()


def load_feeds(folder: Path) -> dict[str, np.ndarray]:
    """Arrays by input name, as ``MeasuringProcess`` writes them: names in JSON, arrays by number."""
    names = json.loads((folder / "names.json").read_text())
    return {name: np.load(folder / f"{index}.npy") for index, name in enumerate(names)}


def _repeat(array: np.ndarray, size: int) -> np.ndarray:
    return array[np.arange(size) % len(array)]


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
