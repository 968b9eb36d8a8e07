"""Print the accuracy that quantisation-aware training keeps, and static INT8 after plain training.

    python -m studies.qat

Cases where static INT8 is easy and where it is not, three seeds each, on the digits: the residual network
and torchvision's mobilenet_v3_small (on images enlarged to 32x32), whole and at a quarter of the width,
calibrated on the usual samples or on four. The columns are accuracies of the files on the test split in
percent, each with the half width of its 95 % interval.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Subset

from petra_optuna import build_task
from petra_optuna.deploy import lower
from petra_optuna.nn.normalize import Normalize
from petra_optuna.operations import Context, Prune, QuantizeAware, QuantizeStatic, Train
from petra_optuna.pipeline import Operation, Recipe
from petra_optuna.tasks import Task
from petra_optuna.tasks.base import cached_base, train_base
from petra_optuna.tasks.digits import MEAN, STD
from petra_optuna.tasks.torchvision_shim import load_torchvision
from studies import script

RECIPE = Recipe(optimizer="sgd", lr=0.02, batch_size=64, distillation_weight=0.9)
MOBILE_EPOCHS = 30
COLUMNS = (
    *("FP32", "static INT8", "trained on, FP32", "trained on, static INT8"),
    *("QAT, INT8", "QAT less static"),
)


class Enlarged(nn.Module):
    """Images of 8x8 for a network that halves its input five times."""

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, 8, 8) to (B, 3, 32, 32)."""
        return nn.functional.interpolate(images, scale_factor=4.0, mode="nearest").expand(-1, 3, -1, -1)


def main() -> None:
    """Print one row for each case."""
    parser = script.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of each training")
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--cache", type=Path, default=script.CACHE)
    arguments = parser.parse_args()
    header = ("case", *(head for column in COLUMNS for head in (column, "±")))
    script.print_table(header, _rows(arguments))


def _rows(arguments: argparse.Namespace) -> Iterator[list[object]]:
    for name in arguments.only:
        accuracies = np.array([_accuracies(CASES[name], seed, arguments) for seed in range(arguments.seeds)])
        gain = accuracies[:, 4] - accuracies[:, 3]
        yield [name, *(cell for column in (*accuracies.T, gain) for cell in script.interval(column))]


def residual(seed: int, cache: Path) -> Task:
    """The digits task."""
    return build_task("digits", cache_dir=cache, seed=seed)


def mobile(seed: int, cache: Path) -> Task:
    """The digits with torchvision's mobilenet_v3_small."""
    task = residual(seed, cache)

    def build() -> nn.Module:
        network = load_torchvision().models.mobilenet_v3_small(num_classes=10)
        parts = OrderedDict(normalize=Normalize([MEAN], [STD]), enlarge=Enlarged(), model=network)
        return nn.Sequential(parts)

    model = cached_base(
        cache,
        "digits-mobile",
        {"epochs": MOBILE_EPOCHS, "seed": seed},
        build,
        lambda: train_base(
            build,
            task.train,
            epochs=MOBILE_EPOCHS,
            batch_size=64,
            peak_lr=0.05,
            label_smoothing=0.05,
            seed=seed,
        ),
    )
    return dataclasses.replace(task, model=model, fingerprint="")


def quarter(make: Callable[[int, Path], Task]) -> Callable[[int, Path], Task]:
    """The same task with its model at a quarter of the width, trained for eight epochs after the cut."""

    def narrow(seed: int, cache: Path) -> Task:
        task = make(seed, cache)
        pruned = Prune(removed=0.75).apply(task.model, _context(task, seed, 0)).model
        model = Train(epochs=8).apply(pruned, _context(task, seed, 8)).model
        return dataclasses.replace(task, model=model, fingerprint="")

    return narrow


def few_images(make: Callable[[int, Path], Task]) -> Callable[[int, Path], Task]:
    """The same task calibrated on four images."""

    def scarce(seed: int, cache: Path) -> Task:
        task = make(seed, cache)
        part = Subset(task.calibration.dataset, list(range(seed, 4 * 40, 40)))
        return dataclasses.replace(task, calibration=dataclasses.replace(task.calibration, dataset=part))

    return scarce


CASES: dict[str, Callable[[int, Path], Task]] = {
    "residual network": residual,
    "residual network, quarter width": quarter(residual),
    "residual network, 4 calibration images": few_images(residual),
    "mobilenet_v3_small": mobile,
    "mobilenet_v3_small, 4 calibration images": few_images(mobile),
    "mobilenet_v3_small, quarter width": quarter(mobile),
}


def _context(task: Task, seed: int, epochs: int) -> Context:
    return Context(task=task, recipe=RECIPE, seed=seed, epochs=epochs)


def _accuracies(
    make: Callable[[int, Path], Task], seed: int, arguments: argparse.Namespace
) -> tuple[float, ...]:
    task = make(seed, arguments.cache)
    context = _context(task, seed, arguments.epochs)
    trained = Train(epochs=arguments.epochs).apply(task.model, context).model
    aware = QuantizeAware(epochs=arguments.epochs).apply(task.model, context).model
    static = QuantizeStatic()
    files = [(task.model, None), (task.model, static), (trained, None), (trained, static), (aware, static)]
    return tuple(_on_test(model, conversion, task, context) for model, conversion in files)


def _on_test(model: nn.Module, conversion: Operation | None, task: Task, context: Context) -> float:
    with tempfile.TemporaryDirectory() as folder:
        artifact = lower(model, task.example, Path(folder, "model.onnx"), conversion, context)
        return script.quality_on_test(artifact.path, task)


if __name__ == "__main__":
    script.run(main)
