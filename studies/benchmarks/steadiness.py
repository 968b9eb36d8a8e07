"""Whether stored values stand still while the machine does not: ``python -m studies.benchmarks.steadiness``.

One file is measured ten times while other processes load all cores at random: on each core one is busy for a
random while, then idle for another. Shown are the relative median absolute deviations of what a study stores
(the ratio to the yardstick, times its frozen value) and of the raw median of a hundred calls.

A net of half the width is measured against its original, for two originals. In ``convolutional`` nearly all
time goes into computing. In ``wide`` a call of batch 1 mostly fetches weights; half of them fit into a core's
own cache, all of them do not, so their ratio itself depends on who else uses the shared cache.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from petra_optuna.deploy import OnnxRuntimeModel, lower
from petra_optuna.measurement import DeviceProfile, MeasuringProcess, available_cores
from petra_optuna.models import ResidualNet
from petra_optuna.nn.inputs import to_feeds
from studies import script

LONGEST_S = 3.0
NETS = {"convolutional": (32, (16, 32, 64)), "wide": (8, (64, 128, 256))}
"""Pixels a side, and the original's widths."""


def main() -> None:
    """Print one row a setting, and whether the stored latency stayed within the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print("| net | machine | batch | stored, MAD | raw, MAD | raw, slowest over fastest |")
    print("|---|---|---|---|---|---|")
    for net in NETS:
        runs = {"as it is": measure(net, given.repeats)}
        with random_load(available_cores(), given.seed):
            runs["under random load"] = measure(net, given.repeats)
        for machine, found in runs.items():
            for batch, (stored, raw) in found.items():
                moves = f"{100 * deviation(stored):.1f} % | {100 * deviation(raw):.1f} %"
                print(f"| {net} | {machine} | {batch} | {moves} | {max(raw) / min(raw):.2f}x |", flush=True)


def measure(net: str, repeats: int) -> dict[int, tuple[list[float], list[float]]]:
    """Half the width against the original, so many times, in one measuring process.

    Returns:
        By batch size the ratios that a study would store, and the raw medians in seconds.
    """
    side, widths = NETS[net]
    inputs = (torch.randn(64, 1, side, side, generator=torch.Generator().manual_seed(0)),)
    feeds = to_feeds(inputs)
    found: dict[int, tuple[list[float], list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name, "original.onnx"), Path(name, "half.onnx")]
        for path, share in zip(paths, (1, 2), strict=True):
            torch.manual_seed(0)
            lower(ResidualNet(1, 10, tuple(width // share for width in widths)).eval(), inputs, path)
        with MeasuringProcess(DeviceProfile(), paths[0], feeds) as process:
            for _ in range(repeats):
                together = process.measure(paths[1])
                for measured in (together.latency, *together.throughput):
                    stored, raw = found.setdefault(measured.batch, ([], []))
                    stored.append(measured.ratio)
                    samples = {key: array[: measured.batch] for key, array in feeds.items()}
                    raw.append(raw_median(paths[1], samples))
    return found


def raw_median(path: Path, feeds: dict[str, np.ndarray]) -> float:
    """Seconds of a call as they are mostly measured: ten calls to warm up, then the median of a hundred."""
    model = OnnxRuntimeModel(path)
    times = []
    for _ in range(110):
        began = time.perf_counter()
        model.run(feeds)
        times.append(time.perf_counter() - began)
    return float(np.median(times[10:]))


def deviation(values: Sequence[float]) -> float:
    """Median absolute deviation over the median."""
    middle = float(np.median(values))
    return float(np.median(np.abs(np.array(values) - middle))) / middle


@contextlib.contextmanager
def random_load(cores: int, seed: int) -> Iterator[None]:
    """Processes that each are busy or idle for random whiles, one for each core."""
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_busy_at_random, args=(seed + core,), daemon=True) for core in range(cores)
    ]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _busy_at_random(seed: int) -> None:
    chance = random.Random(seed)
    array = np.random.default_rng(seed).standard_normal(2**18)
    while True:
        end = time.perf_counter() + chance.uniform(0.1, LONGEST_S)
        while time.perf_counter() < end:
            np.sort(array)
        time.sleep(chance.uniform(0.1, LONGEST_S))


if __name__ == "__main__":
    script.run(main)
