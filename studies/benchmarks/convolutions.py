"""Whether ONNX Runtime is faster with one-dimensional convolutions as two-dimensional ones of height 1.

    python -m studies.benchmarks.convolutions

InceptionTime, FP32 and static INT8, each in both forms, all against FP32 as exported in alternating blocks,
at batch 1 and 64. A smaller ratio is faster. The weights are random: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.deploy import CONV1D, CONV2D, lower
from petra_optuna.measurement import DeviceProfile, MeasuringProcess
from petra_optuna.models import InceptionTime
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.nn.randomness import seeded
from petra_optuna.operations import Context, QuantizeStatic
from petra_optuna.pipeline import Recipe
from petra_optuna.tasks import Task
from studies import script

SAMPLES = 64


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--channels", type=int, default=24, help="Of the series.")
    parser.add_argument("--length", type=int, default=144, help="Of the series.")
    arguments = parser.parse_args()
    task = _task(arguments.channels, arguments.length)
    context = Context(task=task, recipe=Recipe(), seed=0, epochs=0)
    print(f"InceptionTime, {arguments.channels} x {arguments.length}, one thread; time over FP32 1d")
    print("| file | form | batch 1 | interval | ms | batch 64 | interval | ms |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        baseline = Path(folder, "baseline.onnx")
        lower(task.model, task.example, baseline)
        with MeasuringProcess(DeviceProfile(), baseline, to_feeds(task.example)) as process:
            for name, conversion in {"FP32": None, "static INT8": QuantizeStatic()}.items():
                for form in (CONV1D, CONV2D):
                    path = Path(folder, "model.onnx")
                    lower(task.model, task.example, path, conversion, context, convolutions=form)
                    measured = process.measure(path)
                    cells = (
                        f"{found.ratio:.3f} | {found.ratio_low:.3f} to {found.ratio_high:.3f} | "
                        f"{found.candidate_ms:.3g}"
                        for found in (measured.latency, *measured.throughput)
                    )
                    print(f"| {name} | {form} | {' | '.join(cells)} |", flush=True)


def _task(channels: int, length: int) -> Task:
    with seeded(0):
        data = TensorDataset(torch.randn(SAMPLES, channels, length), torch.randn(SAMPLES))
        model = InceptionTime(channels, 1).eval()
    loader = DataLoader(data, batch_size=32)
    return Task.from_loaders(model, loader, loader, metric="rmse")


if __name__ == "__main__":
    script.run(main)
