"""Print how fast InceptionTime is with its convolutions one-dimensional, and two-dimensional of height 1.

    python -m studies.benchmarks.convolutions

FP32 and static INT8, each in both forms, all in ONNX Runtime against FP32 as exported in alternating blocks,
at batch 1 and 64 on one thread. A smaller ratio is faster. The weights are random: speed does not depend on
them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

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
HEADER = ("file", "form", "batch 1", "low", "high", "ms", "batch 64", "low", "high", "ms")


def main() -> None:
    """Print the table."""
    parser = script.parser(__doc__)
    parser.add_argument("--channels", type=int, default=24, help="channels of the series")
    parser.add_argument("--length", type=int, default=144, help="steps of the series")
    arguments = parser.parse_args()
    with seeded(0):
        inputs = torch.randn(SAMPLES, arguments.channels, arguments.length)
        targets = torch.randn(SAMPLES)
        model = InceptionTime(arguments.channels, 1).eval()
    print(f"InceptionTime, {arguments.channels} x {arguments.length}, one thread; time over FP32 1d\n")
    script.print_table(HEADER, _rows(script.synthetic_task(model, inputs, targets, metric="rmse")))


def _rows(task: Task) -> Iterator[list[object]]:
    context = Context(task=task, recipe=Recipe(), seed=0, epochs=0)
    with tempfile.TemporaryDirectory() as folder:
        baseline, path = Path(folder, "baseline.onnx"), Path(folder, "model.onnx")
        lower(task.model, task.example, baseline)
        with MeasuringProcess(DeviceProfile(), baseline, to_feeds(task.example)) as process:
            for name, conversion in {"FP32": None, "static INT8": QuantizeStatic()}.items():
                for form in (CONV1D, CONV2D):
                    lower(task.model, task.example, path, conversion, context, convolutions=form)
                    measurements = script.by_batch(process.measure(path))
                    cells = ((*script.ratio_cells(one), f"{one.candidate_ms:.3g}") for one in measurements)
                    yield [name, form, *(cell for part in cells for cell in part)]


if __name__ == "__main__":
    script.run(main)
