"""How four ways to measure agree: ``python -m studies.benchmarks.measuring_protocol``.

A net against its own copy, and a net of a quarter of the width against the original, at batch 1 and 64 and
one thread: in separate loops (the truth on a quiet machine), in blocks (what petra does), and in
alternating single calls (what it does not do: each call finds the caches cold).
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from petra_optuna.deploy import lower
from petra_optuna.measurement import DeviceProfile, MeasuringProcess
from petra_optuna.models import ResidualNet
from petra_optuna.nn.inputs import to_feeds
from studies import script

Call = Callable[[], object]
WIDTHS = {"original": (64, 128, 256), "copy": (64, 128, 256), "quarter": (16, 32, 64)}


def main() -> None:
    """Make the files, measure them in all ways, print one row for each."""
    inputs = (torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)),)
    feeds = to_feeds(inputs)
    with tempfile.TemporaryDirectory() as name:
        paths = {key: Path(name, f"{key}.onnx") for key in WIDTHS}
        for key, widths in WIDTHS.items():
            torch.manual_seed(0)
            lower(ResidualNet(1, 10, widths).eval(), inputs, paths[key])
        print("times as fast as the original    batch   loops  blocks  alternating")
        with MeasuringProcess(DeviceProfile(), paths["original"], feeds) as process:
            for key in ("copy", "quarter"):
                together = process.measure(paths[key])
                for measured in (together.latency, *together.throughput):
                    batch = measured.batch
                    samples = {"input": feeds["input"][:batch]}
                    candidate, baseline = _call(paths[key], samples), _call(paths["original"], samples)
                    loops = separate_loops(candidate, baseline)
                    blocks = measured.ratio
                    single = alternating_calls(candidate, baseline)
                    print(f"{key:<32}{batch:>6}{1 / loops:>8.2f}{1 / blocks:>8.2f}{1 / single:>13.2f}")


def separate_loops(candidate: Call, baseline: Call, seconds: float = 1.0) -> float:
    """Median time of a call of the candidate over that of the baseline, one after the other."""
    return _loop(candidate, seconds) / _loop(baseline, seconds)


def alternating_calls(candidate: Call, baseline: Call, seconds: float = 2.0) -> float:
    """The same ratio when every call of one follows a call of the other."""
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for call, taken in zip((candidate, baseline), times, strict=True):
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)
    return float(np.median(times[0]) / np.median(times[1]))


def _loop(call: Call, seconds: float) -> float:
    times = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        call()
        times.append(time.perf_counter() - began)
    return float(np.median(times[len(times) // 10 :]))


def _call(path: Path, samples: dict[str, np.ndarray]) -> Call:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return functools.partial(session.run, None, samples)


if __name__ == "__main__":
    script.run(main)
