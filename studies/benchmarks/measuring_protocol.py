"""Print how three ways to time a file agree: separate loops, blocks, and alternating single calls.

    python -m studies.benchmarks.measuring_protocol

A net against its own copy, and a net of a quarter of the width against the original, at batch 1 and 64 and
one thread. Separate loops are the truth on a quiet machine, blocks are what petra measures, and alternating
single calls are what it does not measure: each call finds the caches cold.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Iterator
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
HEADER = ("times as fast as the original", "batch", "separate loops", "blocks", "alternating single calls")


def main() -> None:
    """Make the files, measure them in all ways, print one row for each."""
    script.parser(__doc__).parse_args()
    script.print_table(HEADER, _rows())


def _rows() -> Iterator[list[object]]:
    inputs = (torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)),)
    feeds = to_feeds(inputs)
    with tempfile.TemporaryDirectory() as folder:
        paths = {key: Path(folder, f"{key}.onnx") for key in WIDTHS}
        for key, widths in WIDTHS.items():
            torch.manual_seed(0)
            lower(ResidualNet(1, 10, widths).eval(), inputs, paths[key])
        with MeasuringProcess(DeviceProfile(), paths["original"], feeds) as process:
            for key in ("copy", "quarter"):
                for measured in script.by_batch(process.measure(paths[key])):
                    samples = {"input": feeds["input"][: measured.batch]}
                    candidate, baseline = _call(paths[key], samples), _call(paths["original"], samples)
                    loops = separate_loops(candidate, baseline)
                    single = alternating_calls(candidate, baseline)
                    factors = (f"{1 / ratio:.2f}" for ratio in (loops, measured.ratio, single))
                    yield [key, measured.batch, *factors]


def separate_loops(candidate: Call, baseline: Call, seconds: float = 1.0) -> float:
    """Median time of a call of the candidate over that of the baseline, one loop after the other."""
    return _loop(candidate, seconds) / _loop(baseline, seconds)


def alternating_calls(candidate: Call, baseline: Call, seconds: float = 2.0) -> float:
    """The same ratio when every call of the candidate is followed by a call of the baseline."""
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for call, taken in zip((candidate, baseline), times, strict=True):
            taken.append(script.seconds_of(call))
    return float(np.median(times[0]) / np.median(times[1]))


def _loop(call: Call, seconds: float) -> float:
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        times.append(script.seconds_of(call))
    return float(np.median(times[len(times) // 10 :]))


def _call(path: Path, samples: dict[str, np.ndarray]) -> Call:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return functools.partial(session.run, None, samples)


if __name__ == "__main__":
    script.run(main)
