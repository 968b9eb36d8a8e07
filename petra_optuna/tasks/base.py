"""Base models of the built-in tasks: trained once, kept as safetensors, then loaded."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from petra_optuna.errors import DataError
from petra_optuna.files import write_to_cache
from petra_optuna.nn.inputs import forward
from petra_optuna.nn.randomness import seeded
from petra_optuna.nn.training import Loss, parameter_groups, run_epochs
from petra_optuna.tasks.split import Split

logger = logging.getLogger(__name__)

Optimizer = Literal["sgd", "adamw"]
WEIGHT_DECAY: dict[Optimizer, float] = {"sgd": 5e-4, "adamw": 1e-2}


def train_base(
    build: Callable[[], nn.Module],
    split: Split,
    *,
    epochs: int,
    batch_size: int,
    peak_lr: float,
    label_smoothing: float,
    seed: int,
    optimizer: Optimizer = "sgd",
    loss: Loss | None = None,
) -> nn.Module:
    """Train a new model with a one-cycle schedule.

    Args:
        build: Makes the untrained model.
        split: Training data, read with its augmentation.
        epochs: Number of epochs.
        batch_size: Samples a step.
        peak_lr: Highest learning rate of the cycle.
        label_smoothing: Label smoothing of the cross-entropy.
        seed: Seed of initialisation, order and augmentation.
        optimizer: ``sgd`` with Nesterov momentum 0.9 and weight decay 5e-4, or ``adamw`` with 1e-2.
        loss: Maps outputs and targets to the loss; cross-entropy when None.
    """
    with seeded(seed):
        model = build()
        criterion = loss or nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        run_epochs(
            model,
            lambda epoch: split.batches(batch_size, shuffle_seed=seed * 1000 + epoch, augment=True),
            lambda inputs, targets: criterion(forward(model, inputs), targets),
            _optimizer(model, optimizer, peak_lr),
            schedule="one_cycle",
            epochs=epochs,
            steps_per_epoch=split.steps(batch_size),
        )
    return model


def _optimizer(model: nn.Module, name: Optimizer, lr: float) -> torch.optim.Optimizer:
    groups = parameter_groups(model, WEIGHT_DECAY[name])
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=lr)


def cached_base(
    folder: Path,
    name: str,
    key: Mapping[str, Any],
    build: Callable[[], nn.Module],
    train: Callable[[], nn.Module],
) -> nn.Module:
    """The model that ``train`` makes, from the file of an earlier call where there is one.

    Args:
        folder: Folder in which files are kept; made when it is missing.
        name: First part of the file's name.
        key: JSON-ready values on which the weights depend; the torch version is added.
        build: Makes a model of the same structure to load into.
        train: Makes the trained model.

    Raises:
        DataError: When the folder cannot be written.
    """
    text = json.dumps({**key, "torch": torch.__version__}, sort_keys=True)
    path = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"
    with _locked(path):
        model = _load(path, build)
        if model is None:
            model = train()
            with write_to_cache(path) as temporary:
                temporary.write_bytes(save(model.state_dict()))
    return model.eval()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process train while the others wait for its file.

    Raises:
        DataError: When the folder cannot be written.
    """
    lock = FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot write to {path.parent} ({reason}); give another `cache_dir`") from error
    try:
        yield
    finally:
        lock.release()


def _load(path: Path, build: Callable[[], nn.Module]) -> nn.Module | None:
    """The model with the file's weights; None where there is no file or it is damaged."""
    if not path.exists():
        return None
    try:
        weights = load_file(path)
    except SafetensorError as error:
        logger.warning("%s is damaged (%s); the base model is trained again", path, error)
        return None
    model = build()
    model.load_state_dict(weights)
    return model
