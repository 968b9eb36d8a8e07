"""A network that static INT8 ruins between two of its layers, and nowhere else."""

from __future__ import annotations

import functools

import torch
from support import small_task
from torch import nn
from torch.utils.data import DataLoader

from petra_optuna.tasks import Split, Task
from petra_optuna.tasks.base import train_base

SPOILED = ("2.weight", "4.weight")
LAYERS = 4


def _build() -> nn.Module:
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4))


@functools.cache
def make() -> Task:
    """The tiny task with another network, trained in a second.

    One channel between the second and the third layer is 1000 times as large, and what reads it as much
    smaller: the same function, but no step is left for the other channels.
    """
    parts = [small_task.data(count, seed) for seed, count in enumerate((256, 128, 128))]
    settings = {"batch_size": 32, "peak_lr": 0.05, "label_smoothing": 0.0, "seed": 0}
    model = train_base(_build, Split(parts[0]), epochs=6, **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        model[2].weight[0] *= 1000  # type: ignore[index, union-attr, operator]
        model[2].bias[0] *= 1000  # type: ignore[index, union-attr, operator]
        model[4].weight[:, 0] /= 1000  # type: ignore[index, union-attr]
    train, selection, test = (DataLoader(part, batch_size=32) for part in parts)
    return Task.from_loaders(model, train, selection, test, metric="accuracy", name="planted")
