"""Print how fast each runtime runs each precision of ResNet-18 and of InceptionTime.

    python -m studies.benchmarks.runtimes

torchvision's ResNet-18 (10 classes, 32x32 images) and InceptionTime (24 channels, 144 steps, six modules of
256 features), both with random weights, lowered by each conversion that a runtime runs. Shown is the time of
a call over that of the original in ONNX Runtime FP32, which is measured beside each in alternating blocks of
one process, with the 95 % interval. A runtime that is not installed gets a row that says so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from petra_optuna.deploy import lower
from petra_optuna.errors import TrialError, UserError
from petra_optuna.measurement import DeviceProfile, MeasuringProcess
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
HEADER = ("model", "runtime", "precision", "batch 1", "low", "high", "batch 64", "low", "high", "bytes")


def main() -> None:
    """Print one row for each model, runtime and conversion."""
    parser = script.parser(__doc__)
    parser.add_argument("--threads", type=int, default=1, help="threads of the runtime")
    given = parser.parse_args()
    classes = torch.arange(SAMPLES) % 10
    with seeded(0):
        resnet, images = load_torchvision().models.resnet18(num_classes=10), torch.rand(SAMPLES, 3, 32, 32)
        inception, series = InceptionTime(24, 10, filters=64), torch.randn(SAMPLES, 24, 144)
    tasks = [
        script.synthetic_task(resnet, images, classes, name="ResNet-18"),
        script.synthetic_task(inception, series, classes, name="InceptionTime"),
    ]
    script.print_table(HEADER, _rows(tasks, given.threads))


def _rows(tasks: list[Task], threads: int) -> Iterator[list[object]]:
    for task in tasks:
        for runtime in RUNTIMES:
            try:
                yield from rows(task, DeviceProfile(threads=threads, runtime=runtime.name))
            except UserError as error:
                yield [task.name, runtime.name, error, *[""] * 7]


def rows(task: Task, profile: DeviceProfile) -> Iterator[list[object]]:
    """The rows of one model in one runtime.

    Raises:
        UserError: When the runtime is not installed.
    """
    conversions: list[Operation | None] = [None]
    conversions += [
        operation_class() for operation_class in default_space(runtime=profile.runtime).conversions
    ]
    context = Context(task=task, recipe=Recipe(), seed=0, epochs=0)
    with tempfile.TemporaryDirectory() as folder:
        baseline, path = Path(folder, "baseline.onnx"), Path(folder, "candidate.onnx")
        lower(task.model, task.example, baseline)
        with MeasuringProcess(profile, baseline, to_feeds(task.example)) as process:
            for conversion in conversions:
                names = [task.name, profile.runtime, conversion.name if conversion else "fp32"]
                try:
                    file = lower(task.model, task.example, path, conversion, context, runtime=profile.runtime)
                    measurements = script.by_batch(process.measure(path))
                except TrialError as error:
                    yield [*names, error, *[""] * 6]
                    continue
                cells = [cell for one in measurements for cell in script.ratio_cells(one)]
                yield [*names, *cells, file.size_bytes]


if __name__ == "__main__":
    script.run(main)
