"""Checks of a task, made before a study spends time on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from petra_optuna.errors import DataError, TaskError, foreign_errors_as
from petra_optuna.nn.copying import private_copy
from petra_optuna.nn.inputs import Inputs, batch_size_of, forward
from petra_optuna.nn.outputs import own_model
from petra_optuna.nn.randomness import seeded
from petra_optuna.tasks.split import Split


def check_split(name: str, split: Split) -> None:
    """Check that a split can be indexed and has samples.

    Raises:
        TaskError: When the data set is a stream or has no length.
        DataError: When it has fewer than two samples.
    """
    dataset_class = type(split.dataset)
    if isinstance(split.dataset, IterableDataset) or not hasattr(dataset_class, "__len__"):
        raise TaskError(
            f"the {name} data set must have __len__ and __getitem__, {dataset_class.__name__} has not"
        )
    if len(split) < 2:
        raise DataError(f"the {name} split has {len(split)} samples; at least 2 are needed")


def check_forward(model: nn.Module, split: Split) -> None:
    """Check that the model maps one batch to one output a sample.

    Raises:
        TaskError: When it raises or returns something else; the text says what.
    """
    inputs, targets = next(split.batches(2))
    with torch.no_grad(), foreign_errors_as(TaskError, "the model fails on a selection batch"):
        outputs = forward(model, inputs)
    count = batch_size_of(inputs)
    if outputs.ndim == 0 or len(outputs) != count or len(targets) != count:
        raise TaskError(
            f"for {count} samples the model gave outputs of shape {tuple(outputs.shape)} and the data "
            f"targets of shape {tuple(targets.shape)}; the first dimension of both must be the batch"
        )


def check_loss(
    model: nn.Module,
    split: Split,
    loss: Callable[[Tensor, Tensor], Tensor],
    training_step: Callable[[nn.Module, Inputs, Tensor], Tensor] | None,
) -> None:
    """Check that one training batch gives one differentiable number.

    Raises:
        TaskError: When the loss raises or returns something else; the text says what.
    """
    inputs, targets = next(split.batches(2))
    private = private_copy(model)
    with foreign_errors_as(TaskError, "the loss fails on a training batch"), seeded(0):
        if training_step is not None:
            value = training_step(own_model(private), inputs, targets)
        else:
            value = loss(forward(private, inputs), targets)
    if not isinstance(value, Tensor):
        raise TaskError(f"the training loss must be a tensor, got {type(value).__name__}")
    if value.numel() != 1 or not value.requires_grad:
        gradient = "with" if value.requires_grad else "without"
        raise TaskError(
            f"the training loss must be one differentiable number, got shape {tuple(value.shape)} "
            f"{gradient} a gradient"
        )


def check_classes(split: Split, labels: tuple[str, ...]) -> None:
    """Check that each class has a training sample, when ``labels`` names classes.

    Raises:
        DataError: When a class has none or a target is no class; the text names the first.
    """
    if not labels:
        return
    counts = Counter(_class_indices(split))
    outside = sorted(set(counts) - set(range(len(labels))))
    if outside:
        raise DataError(f"a training sample has class {outside[0]}, but there are {len(labels)} labels")
    for index, label in enumerate(labels):
        if counts[index] == 0:
            raise DataError(f"class {label!r} has no training sample; add some or remove the label")


def _class_indices(split: Split) -> list[int]:
    """Class index of each sample, from the data set's own list where it has one."""
    targets: Any = getattr(split.dataset, "targets", None)
    translated = getattr(split.dataset, "target_transform", None) is not None
    if targets is not None and len(targets) == len(split) and not translated:
        return torch.as_tensor(targets).tolist()
    return [int(index) for _, batch in split.batches(256) for index in _flat(batch)]


def _flat(targets: Tensor) -> list[int]:
    if targets.is_floating_point():
        raise DataError(f"labels are given, so targets must be class indices, got {targets.dtype}")
    return targets.reshape(-1).tolist()
