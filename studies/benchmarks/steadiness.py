"""Print how far stored and raw times of one file move while other processes load the machine.

    python -m studies.benchmarks.steadiness

One file is measured ten times on the machine as it is; then while other processes load all cores at random
(on each core one is busy for a random while, then idle for another); then while one is busy on each core all
the time. Shown are the relative median absolute deviations of what a study stores (the ratio to the baseline,
times its frozen value) and of the raw median of a hundred calls, and both medians over those on the machine
as it is.

A narrower net is measured against its original, for three originals. In ``convolutional``, at half the width,
nearly all time goes into computing. In ``wide``, at half the width too, a call of batch 1 mostly fetches
weights; half of them fit into a core's own cache, all of them do not, so their ratio itself depends on who
else uses the shared cache. In ``tiny`` an eighth of the width meets an original whose calls at batch 64 are
longer than a time slice; its own are not.

The second table is of a whole study of the digits, run on the machine as it is and again, with the same
pipelines, while one process is busy on each core (``--trials 0`` leaves it out).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import optuna
import torch

from petra_optuna.deploy import OnnxRuntimeModel, lower
from petra_optuna.measurement import DeviceProfile, MeasuringProcess, available_cores
from petra_optuna.models import ResidualNet
from petra_optuna.nn.inputs import to_feeds
from studies import script
from studies.benchmarks import study_steadiness
from studies.benchmarks.study_steadiness import compare_studies

LONGEST_S = 3.0
NETS = {
    "convolutional": (32, (16, 32, 64), 2),
    "wide": (8, (64, 128, 256), 2),
    "tiny": (32, (16, 32, 64), 8),
}
"""Pixels a side, the original's widths, and what they are divided by."""
IDLE_S = {"under random load": LONGEST_S, "all cores busy": 0.0}
"""Longest idle time of a process that loads a core."""
AS_IT_IS = "as it is"
HEADER = (
    *("net", "machine", "batch", "stored: MAD, %", "raw: MAD, %"),
    *(f'stored: over "{AS_IT_IS}"', f'raw: over "{AS_IT_IS}"'),
)


def main() -> None:
    """Print one row for each net, state of the machine and batch."""
    parser = script.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=10, help="measurements of each file; 0 for none")
    parser.add_argument("--seed", type=int, default=0, help="seed of the load")
    parser.add_argument("--trials", type=int, default=12, help="trials of each whole study")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if given.repeats:
        script.print_table(HEADER, _rows(given.repeats, given.seed))
    if given.trials:
        print()
        with tempfile.TemporaryDirectory() as name:
            busy = load(available_cores(), given.seed, 0.0)
            script.print_table(study_steadiness.HEADER, compare_studies(given.trials, Path(name), busy))


def _rows(repeats: int, seed: int) -> Iterator[list[object]]:
    for net in NETS:
        runs = {AS_IT_IS: measure(net, repeats)}
        for machine, idle_s in IDLE_S.items():
            with load(available_cores(), seed, idle_s):
                runs[machine] = measure(net, repeats)
        for machine, times in runs.items():
            for batch, both in times.items():
                moves = (f"{100 * deviation(values):.1f}" for values in both)
                pairs = zip(both, runs[AS_IT_IS][batch], strict=True)
                over = (f"{np.median(values) / np.median(quiet):.2f}" for values, quiet in pairs)
                yield [net, machine, batch, *moves, *over]


def measure(net: str, repeats: int) -> dict[int, tuple[list[float], list[float]]]:
    """The narrow net against the original, measured ``repeats`` times in one measuring process.

    Returns:
        The ratios that a study would store and the raw medians in seconds, by batch size.
    """
    side, widths, part = NETS[net]
    inputs = (torch.randn(64, 1, side, side, generator=torch.Generator().manual_seed(0)),)
    feeds = to_feeds(inputs)
    times: dict[int, tuple[list[float], list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name, "original.onnx"), Path(name, "narrow.onnx")]
        for path, share in zip(paths, (1, part), strict=True):
            torch.manual_seed(0)
            lower(ResidualNet(1, 10, tuple(width // share for width in widths)).eval(), inputs, path)
        with MeasuringProcess(DeviceProfile(), paths[0], feeds) as process:
            for _ in range(repeats):
                for measured in script.by_batch(process.measure(paths[1])):
                    stored, raw = times.setdefault(measured.batch, ([], []))
                    stored.append(measured.ratio)
                    samples = {key: array[: measured.batch] for key, array in feeds.items()}
                    raw.append(raw_median(paths[1], samples))
    return times


def raw_median(path: Path, feeds: dict[str, np.ndarray]) -> float:
    """Seconds of a call as they are mostly measured: ten calls to warm up, then the median of a hundred."""
    model = OnnxRuntimeModel(path)
    times = [script.seconds_of(lambda: model.run(feeds)) for _ in range(110)]
    return float(np.median(times[10:]))


def deviation(values: Sequence[float]) -> float:
    """Median absolute deviation over the median."""
    middle = float(np.median(values))
    return float(np.median(np.abs(np.array(values) - middle))) / middle


@contextlib.contextmanager
def load(cores: int, seed: int, idle_s: float) -> Iterator[None]:
    """Load each core with a process that is busy and idle in turns, idle for at most ``idle_s`` seconds."""
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_busy, args=(seed + core, idle_s), daemon=True) for core in range(cores)
    ]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _busy(seed: int, idle_s: float) -> None:
    chance = random.Random(seed)
    array = np.random.default_rng(seed).standard_normal(2**18)
    while True:
        end = time.perf_counter() + chance.uniform(0.1, LONGEST_S)
        while time.perf_counter() < end:
            np.sort(array)
        time.sleep(chance.uniform(0.0, idle_s))


if __name__ == "__main__":
    script.run(main)
