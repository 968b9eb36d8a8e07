"""The measuring child: ``python -m petra_optuna.measurement.worker``.

It reads one JSON request a line from stdin and answers each with one JSON line on its first stdout::

    {"command": "open", "baseline": PATH, "feeds": FOLDER, "profile": {...}, "schedule": {...}}
    {"command": "baseline"}
    {"command": "measure", "path": PATH}
    {"command": "peak_memory", "path": PATH, "runtime": NAME, "feeds": FOLDER, "profile": {...},
     "limit": BYTES or null}
    {"command": "open_settings", "path": PATH, "feeds": FOLDER, "device": NAME, "cores": [...],
     "schedule": {...}, "limit": BYTES or null, "energy": TEXT or null}
    {"command": "setting", "setting": {...}}
    {"command": "anchor"}
    {"command": "calls", "setting": {...}, "calls": COUNT}

``open`` loads the baseline, which stays open, so that ``measure`` loads the candidate only. ``baseline``
measures the baseline alone, ``measure`` a candidate against it. ``peak_memory`` is for a child that does
nothing else. ``open_settings`` loads one file, of which ``setting`` measures a setting against its ``anchor``
and ``calls`` the time of each call; ``energy`` names an estimator or is ``counters``.

An answer is ``{"result": ...}`` or ``{"error": TEXT}``. Before it may come lines ``{"expected_s": SECONDS}``:
work goes on, and the next line is expected within so many seconds of it. The child ends when its stdin does.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from petra_optuna.errors import MeasurementFailed, RuntimeFailed, one_line
from petra_optuna.measurement.answers import private_stdout
from petra_optuna.measurement.bench import Announce, Bench, batch_of
from petra_optuna.measurement.energy import Counter, counter_named
from petra_optuna.measurement.feeds import load_feeds
from petra_optuna.measurement.memory import PeakMemory, limit_memory
from petra_optuna.measurement.profile import DeviceProfile
from petra_optuna.measurement.protocol import Schedule
from petra_optuna.measurement.setting import InferenceSetting
from petra_optuna.measurement.setting_bench import SettingBench
from petra_optuna.runtimes import Runtime, Session, runtime

_RUNS_FOR_MEMORY = 2


def peak_memory(request: dict[str, Any], announce: Announce) -> int | None:
    """Most bytes that loading and running a file at the latency batch adds to this process.

    None for a device with a memory of its own. The runtime itself does not count: a tiny file has been run in
    it before. Under a limit the file also runs at the other batch sizes.

    Raises:
        RuntimeFailed: When the file cannot be loaded or run, or needs more than the limit.
    """
    profile = _apply_profile(request)
    if profile.name != "cpu":
        return None
    chosen, limit = runtime(request["runtime"]), request["limit"]
    samples = load_feeds(Path(request["feeds"]))
    feeds = batch_of(samples, profile.latency_batch)
    tiny = _with_a_tiny_file(chosen, profile.threads)
    if limit is not None:
        limit_memory(limit)
    memory = PeakMemory()
    session = chosen.open(Path(request["path"]), profile.threads)
    for _ in range(_RUNS_FOR_MEMORY):
        announce(0.0)
        session.run(feeds)
    peak = memory.bytes()
    for size in profile.throughput_batches if limit is not None else ():
        announce(0.0)
        session.run(batch_of(samples, size))
    del tiny  # until here: the file would use its memory again, which would not count
    return peak


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until there are no more."""

    def write(line: dict[str, Any]) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    server = _Server(lambda seconds: write({"expected_s": seconds}))
    for line in requests:
        write(server.answer(json.loads(line)))


class _Server:
    """Answers requests, the later ones with the baseline that ``open`` loaded."""

    def __init__(self, announce: Announce) -> None:
        self._announce = announce
        self._bench: Bench | None = None
        self._settings: SettingBench | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"result": self._result(request)}
        except (RuntimeFailed, MeasurementFailed) as error:
            return {"error": one_line(error)}

    def _result(self, request: dict[str, Any]) -> object:
        command = request["command"]
        if command == "open":
            self._bench = Bench.load(
                Path(request["baseline"]),
                load_feeds(Path(request["feeds"])),
                _apply_profile(request),
                Schedule(**request["schedule"]),
                self._announce,
            )
            return None
        if command == "peak_memory":
            return peak_memory(request, self._announce)
        if command == "open_settings":
            self._settings = _open_settings(request, self._announce)
            return None
        if self._settings is not None:
            return _of_settings(self._settings, request)
        if self._bench is None:
            raise ValueError("the first request must be 'open'")
        if command == "baseline":
            return self._bench.measure_baseline()
        return self._bench.measure(Path(request["path"]))


def _open_settings(request: dict[str, Any], announce: Announce) -> SettingBench:
    """Keep to the request's cores and memory, and open its file.

    Raises:
        RuntimeFailed: When the file cannot be loaded, or needs more memory than there is.
        MeasurementFailed: When energy is asked for and nothing counts it.
    """
    device, energy = request["device"], request["energy"]
    _keep_to_cores(tuple(request["cores"]))
    default = DeviceProfile.named(device).baseline_place
    counter: Counter | str = ""
    if energy is not None:
        counter = counter_named(energy, runtime(default[0]).device_uuid(device))
        if isinstance(counter, str):
            raise MeasurementFailed(f"energy cannot be an objective here: {counter}")
    tiny = _with_a_tiny_file(runtime(default[0]), 1)
    if request["limit"] is not None:
        limit_memory(request["limit"])
    del tiny
    schedule = Schedule(**request["schedule"])
    samples = load_feeds(Path(request["feeds"]))
    return SettingBench.load(Path(request["path"]), samples, default, schedule, announce, counter)


def _of_settings(bench: SettingBench, request: dict[str, Any]) -> object:
    """What a request asks of the open file."""
    if request["command"] == "anchor":
        return bench.measure_anchor()
    setting = InferenceSetting(**request["setting"])
    if request["command"] == "calls":
        return bench.call_seconds(setting, request["calls"])
    return bench.measure(setting)


def _apply_profile(request: dict[str, Any]) -> DeviceProfile:
    """Make this process keep to the cores of the request's profile, and return the profile."""
    profile = DeviceProfile.from_dict(request["profile"])
    if profile.affinity is not None:
        _keep_to_cores(profile.affinity)
    elif hasattr(os, "sched_setaffinity"):  # the last ones: the first serve most interrupts
        _keep_to_cores(sorted(os.sched_getaffinity(0))[-profile.threads :])
    return profile


def _keep_to_cores(cores: Sequence[int]) -> None:
    """Keep this process to the cores of these numbers.

    Raises:
        RuntimeFailed: When this system or process may not keep to them.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise RuntimeFailed("this system cannot keep a process to the cores that the device names")
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        raise RuntimeFailed(
            f"the measuring process cannot keep to cores {tuple(cores)}: {one_line(error)}"
        ) from error


def _with_a_tiny_file(chosen: Runtime, threads: int) -> Session:
    """A session of a tiny file that has run, so that what the runtime loads late is loaded."""
    from onnx import TensorProto, helper  # takes a moment that a child that measures times does not need

    weights = {"kernel": (1, 1, 1, 1), "bias": (1,), "matrix": (1, 1)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "kernel", "bias"], ["map"]),
            helper.make_node("Relu", ["map"], ["positive"]),
            helper.make_node("GlobalAveragePool", ["positive"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["features"]),
            helper.make_node("Gemm", ["features", "matrix", "bias"], ["output"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 1, 1, 1))],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, (1, 1))],
        [helper.make_tensor(name, TensorProto.FLOAT, shape, [1.0]) for name, shape in weights.items()],
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = chosen.open(file.SerializeToString(), threads)
    session.run({"input": np.ones((1, 1, 1, 1), dtype=np.float32)})
    return session


def main() -> None:
    """Serve on stdin and a private copy of stdout."""
    answers = private_stdout()
    gc.disable()
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
