"""The measuring child: ``python -m petra_optuna.measurement.worker``.

It reads one JSON request a line from stdin and answers each with one JSON line on its first stdout::

    {"command": "open", "baseline": PATH, "feeds": FOLDER, "profile": {...}, "schedule": {...}}
    {"command": "baseline"}
    {"command": "measure", "path": PATH}
    {"command": "peak_memory", "path": PATH, "runtime": NAME, "feeds": FOLDER, "profile": {...},
     "limit": BYTES or null}

``open`` loads the baseline, which stays open, so that ``measure`` loads the candidate only. ``baseline``
measures the baseline alone, ``measure`` a candidate against it. ``peak_memory`` is for a child that does
nothing else. An answer is ``{"result": ...}`` or ``{"error": TEXT}``. Before it may come lines
``{"expected_s": SECONDS}``: work goes on, and the next line is expected within so many seconds of it. The
child ends when its stdin does.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from petra_optuna.errors import MeasurementFailed, RuntimeFailed, one_line
from petra_optuna.measurement.bench import Announce, Bench, batch_of
from petra_optuna.measurement.memory import PeakMemory, limit_memory
from petra_optuna.measurement.profile import DeviceProfile
from petra_optuna.measurement.protocol import Schedule
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
        if self._bench is None:
            raise ValueError("the first request must be 'open'")
        if command == "baseline":
            return self._bench.measure_baseline()
        return self._bench.measure(Path(request["path"]))


def load_feeds(folder: Path) -> dict[str, np.ndarray]:
    """Arrays by input name, as ``MeasuringProcess`` writes them: names in JSON, arrays by number."""
    names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
    return {name: np.load(folder / f"{index}.npy") for index, name in enumerate(names)}


def _apply_profile(request: dict[str, Any]) -> DeviceProfile:
    """Make this process keep to the cores of the request's profile, and return the profile."""
    profile = DeviceProfile.from_dict(request["profile"])
    _keep_to_cores(profile)
    return profile


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
    """Serve on stdin and a private copy of stdout: native code may print on the original."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    gc.disable()
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
