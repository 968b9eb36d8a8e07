"""What each runtime makes of each precision: ``python -m studies.benchmarks.runtimes``.

torchvision's ResNet-18 (10 classes, 32x32 images) and InceptionTime (24 channels, 144 steps, six modules
of 256 features), both with random weights, lowered by each conversion that a runtime runs. Shown is the
time of a call over that of the original in ONNX Runtime FP32, which is measured beside each in alternating
blocks of one process; in brackets its 95 % interval. Runtimes that are not installed are named as such.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.deploy import lower
from petra_optuna.errors import TrialError, UserError
from petra_optuna.measurement import DeviceProfile, Measurement, MeasuringProcess
from petra_optuna.models import InceptionTime
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.nn.randomness import seeded
from petra_optuna.operations import Context, default_space
from petra_optuna.pipeline import Operation, Recipe
from petra_optuna.runtimes import RUNTIMES
from petra_optuna.tasks import Task
from petra_optuna.tasks.torchvision_shim import load_torchvision
from studies import script

SAMPLES = 256


def main() -> None:
    """Print one row for each model, runtime and conversion."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    with seeded(0):
        tasks = [
            _task(
                "ResNet-18",
                load_torchvision().models.resnet18(num_classes=10),
                torch.rand(SAMPLES, 3, 32, 32),
            ),
            _task("InceptionTime", InceptionTime(24, 10, filters=64), torch.randn(SAMPLES, 24, 144)),
        ]
    print("| model | runtime | precision | batch 1 | batch 64 | bytes |\n|---|---|---|---|---|---|")
    for task in tasks:
        for runtime in RUNTIMES:
            try:
                rows(task, DeviceProfile(threads=given.threads, runtime=runtime.name))
            except UserError as error:
                print(f"| {task.name} | {runtime.name} | {error} | | | |")


def rows(task: Task, profile: DeviceProfile) -> None:
    """Print the rows of one model in one runtime.

    Raises:
        UserError: When the runtime is not installed.
    """
    conversions: list[Operation | None] = [None]
    conversions += [kind() for kind in default_space(runtime=profile.runtime).conversions]
    context = Context(task=task, recipe=Recipe(), seed=0, epochs=0)
    with tempfile.TemporaryDirectory() as name:
        baseline, path = Path(name, "baseline.onnx"), Path(name, "candidate.onnx")
        lower(task.model, task.example, baseline)
        with MeasuringProcess(profile, baseline, to_feeds(task.example)) as process:
            for conversion in conversions:
                start = f"| {task.name} | {profile.runtime} | {conversion.name if conversion else 'fp32'}"
                try:
                    made = lower(task.model, task.example, path, conversion, context, runtime=profile.runtime)
                    found = process.measure(path)
                except TrialError as error:
                    print(f"{start} | {error} | | |", flush=True)
                    continue
                cells = " | ".join(_cell(one) for one in (found.latency, *found.throughput))
                print(f"{start} | {cells} | {made.size_bytes} |", flush=True)


def _cell(found: Measurement) -> str:
    return f"{found.ratio:.3f} ({found.ratio_low:.3f} to {found.ratio_high:.3f})"


def _task(name: str, model: nn.Module, inputs: Tensor) -> Task:
    loader = DataLoader(TensorDataset(inputs, torch.arange(len(inputs)) % 10), batch_size=64)
    return Task.from_loaders(model, loader, loader, metric="accuracy", name=name)


if __name__ == "__main__":
    script.run(main)
