"""Task of the stored studies: scikit-learn's digits, a residual network with 2,900 weights from a file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna import Task
from petra_optuna.models import ResidualNet

WEIGHTS = Path(__file__).with_name("weights.safetensors")


def make() -> Task:
    """600 images to train, 300 for selection, 300 for the test; the base gets nine of ten right."""
    images, targets = load_digits(return_X_y=True)
    inputs = torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 16
    labels = torch.from_numpy(targets).long()
    bounds = ((0, 600), (600, 900), (900, 1200))
    loaders = [DataLoader(TensorDataset(inputs[a:b], labels[a:b]), batch_size=32) for a, b in bounds]
    model = ResidualNet(1, 10, widths=(6, 12), blocks=1)
    model.load_state_dict(load_file(WEIGHTS))
    return Task.from_loaders(model, *loaders, metric="accuracy", name="old_task:make")
