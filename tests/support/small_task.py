"""A small user task, for tests in this process and in others (``support.small_task:make``)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.models import ResidualNet
from petra_optuna.tasks import Split, Task
from petra_optuna.tasks.base import train_base

CLASSES = 4


def make() -> Task:
    """A small residual network with batch norm on four noisy patterns; trains in a second.

    Images (1, 8, 8), 256 train, 128 selection, 128 test; the base gets nearly all of them right.
    """
    parts = [data(count, seed) for seed, count in enumerate((256, 128, 128))]
    train, selection, test = (DataLoader(part, batch_size=32) for part in parts)
    model = train_base(
        lambda: ResidualNet(1, CLASSES, widths=(16, 32), blocks=1),
        Split(parts[0]),
        epochs=6,
        batch_size=32,
        peak_lr=0.05,
        label_smoothing=0.0,
        seed=0,
    )
    labels = tuple(f"pattern {index}" for index in range(CLASSES))
    return Task.from_loaders(model, train, selection, test, metric="accuracy", name="tiny", labels=labels)


def data(count: int, seed: int, noise: float = 1.2) -> TensorDataset:
    """Noisy copies of one fixed pattern a class: images (N, 1, 8, 8), classes (N,)."""
    patterns = torch.randn(CLASSES, 1, 8, 8, generator=torch.Generator().manual_seed(1234))
    generator = torch.Generator().manual_seed(seed)
    targets: Tensor = torch.arange(count) % CLASSES
    distance = torch.randn(count, 1, 8, 8, generator=generator)
    return TensorDataset(patterns[targets] + noise * distance, targets)
