"""Checks of a task, made before a study spends time on it."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import IterableDataset

from petra_optuna.errors import DataError, MeasurementFailed, TaskError, foreign_errors_as
from petra_optuna.nn.inputs import Inputs, batch_size_of, forward, mapped
from petra_optuna.nn.outputs import own_model
from petra_optuna.nn.randomness import seeded
from petra_optuna.nn.training import Loss, TrainingStep, functional_form
from petra_optuna.tasks.classes import class_indices
from petra_optuna.tasks.metrics import METRICS, Metric
from petra_optuna.tasks.outputs import Outputs, joined_targets
from petra_optuna.tasks.split import Split

TRAINED, EVALUATED = 8, 64
"""Samples of the training step and of the evaluation that are tried."""

_BROADCAST = "Using a target size"


def check_split(split: Split) -> None:
    """Check that a split can be indexed and has samples.

    Raises:
        TaskError: When the data set is a stream or has no length.
        DataError: When it has fewer than two samples.
    """
    dataset_class = type(split.dataset)
    if isinstance(split.dataset, IterableDataset) or not hasattr(dataset_class, "__len__"):
        raise TaskError(
            f"the {split.name} data set must have __len__ and __getitem__, {dataset_class.__name__} has not"
        )
    if len(split) < 2:
        raise DataError(f"the {split.name} split has {len(split)} samples; at least 2 are needed")


def check_evaluation(model: nn.Module, split: Split, metric: Metric) -> None:
    """Check that the model maps batches to one output a sample, and that the metric can read the outputs.

    A metric that fails on some samples is tried on all before it is refused: it may need each class.

    Args:
        model: Model in evaluation mode, private to the caller.
        split: Selection split.
        metric: Metric of quality.

    Raises:
        TaskError: When one of them fails or does not fit; the text says what.
    """
    outputs, targets = _predict(model, split, min(EVALUATED, len(split)))
    try:
        _check_metric(metric, outputs, targets)
    except TaskError:
        if len(split) <= EVALUATED:
            raise
        outputs, targets = _predict(model, split, len(split))
        _check_metric(metric, outputs, targets)
    if metric in METRICS and metric.name in ("accuracy", "macro_f1") and outputs[0].size == 1:
        _check_logits(model, split, metric, outputs)


def check_training(
    model: nn.Module, split: Split, loss: Loss, training_step: TrainingStep | None
) -> tuple[Tensor, Tensor] | None:
    """Check that one training step in training mode gives a loss whose gradient moves the model.

    Args:
        model: Model in evaluation mode, private to the caller; it is left in training mode.
        split: Training split.
        loss: Maps outputs and targets to the loss.
        training_step: Replaces forward and loss where it is given.

    Returns:
        The model's outputs in evaluation mode and the targets of a batch; None with ``training_step``.

    Raises:
        TaskError: When the loss raises, is constant, or is no differentiable finite number.
    """
    count = min(TRAINED, len(split))
    inputs, targets = next(split.batches(count, shuffle_seed=0, limit=count))
    tried: tuple[Tensor, Tensor] | None = None
    if training_step is None:
        with torch.no_grad(), foreign_errors_as(TaskError, "the model fails on a training batch"):
            tried = forward(model, inputs), targets
        _check_classes_of(loss, tried[0])
    model.train()
    if not _moves(model, inputs, targets, loss, training_step):
        # A model may be perfect on a batch; it is not with every weight on the other side of zero.
        with torch.no_grad(), seeded(0):
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    parameter.neg_().add_(0.1 * torch.randn_like(parameter))
        if not _moves(model, inputs, targets, loss, training_step):
            raise TaskError(
                "the training loss is constant: its gradient is zero for each weight; give another `loss`"
            )
    return tried


def check_classes(split: Split, labels: tuple[str, ...]) -> None:
    """Check that each class has a training sample, when ``labels`` names classes.

    Raises:
        DataError: When a class has none or a target is no class; the text names the first.
    """
    if not labels:
        return
    counts = Counter(class_indices(split))
    outside = sorted(set(counts) - set(range(len(labels))))
    if outside:
        raise DataError(f"a training sample has class {outside[0]}, but there are {len(labels)} labels")
    for index, label in enumerate(labels):
        if counts[index] == 0:
            raise DataError(f"class {label!r} has no training sample; add some or remove the label")


def _predict(model: nn.Module, split: Split, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and targets of so many samples, spread over the split."""
    targets: list[np.ndarray] = []

    def predict(inputs: Inputs) -> np.ndarray:
        with torch.no_grad(), foreign_errors_as(TaskError, "the model fails on a selection batch"):
            output: np.ndarray = forward(model, inputs).numpy()
        rows = batch_size_of(inputs)
        if output.ndim == 0 or len(output) != rows or len(targets[-1]) != rows:
            raise TaskError(
                f"for {rows} samples the model gave outputs of shape {output.shape} and the data "
                f"targets of shape {targets[-1].shape}; the first dimension of both must be the batch"
            )
        return output

    outputs = Outputs(predict, count)
    try:
        for inputs, target in split.batches(TRAINED, fraction=count / len(split), limit=count):
            targets.append(target.numpy())
            outputs.add(inputs, batch_size_of(inputs))
        return outputs.joined(), joined_targets(targets)
    except MeasurementFailed as error:
        raise TaskError(f"the model cannot be evaluated on the {split.name} split: {error}") from error


def _check_metric(metric: Metric, outputs: np.ndarray, targets: np.ndarray) -> None:
    fitting = f"{metric.name} does not fit outputs {outputs.shape} and targets {targets.shape}"
    with foreign_errors_as(TaskError, fitting):
        outputs, targets = metric.prepared(outputs, targets)
        quality = metric.of_prepared(outputs, targets)
        parts = None if metric.per_sample is None else np.asarray(metric.per_sample(outputs, targets))
    if not math.isfinite(quality):
        raise TaskError(f"{metric.name} of the model's outputs is {quality}")
    if parts is not None and (parts.shape != (len(targets),) or not np.isclose(parts.mean(), quality)):
        raise TaskError(
            f"`per_sample` of {metric.name} must give one number a sample whose mean is the metric, "
            f"{quality:.6g}; got shape {parts.shape} with mean {parts.mean():.6g}"
        )


def _check_logits(model: nn.Module, split: Split, metric: Metric, outputs: np.ndarray) -> None:
    """Refuse one probability a sample where a logit is read.

    A model of logits may give numbers from 0 to 1 by chance; with inputs far from its own it does not.
    """
    inputs, _ = next(split.batches(TRAINED, limit=TRAINED))
    with torch.no_grad(), foreign_errors_as(TaskError, "the model fails on a selection batch"):
        far = [forward(model, _scaled(inputs, factor)).numpy() for factor in (100.0, -100.0)]
    if all(part.min() >= 0 and part.max() <= 1 for part in (outputs, *far)):
        raise TaskError(
            f"{metric.name} reads one output a sample as a logit, positive meaning class 1, and the model "
            "gives probabilities; end it with the logit, and train with binary_cross_entropy_with_logits"
        )


def _scaled(inputs: Inputs, factor: float) -> Inputs:
    return mapped(inputs, lambda tensor: tensor * factor if tensor.is_floating_point() else tensor)


def _check_classes_of(loss: Loss, outputs: Tensor) -> None:
    if functional_form(loss)[0] is functional.cross_entropy and outputs.ndim > 1 and outputs.shape[1] == 1:
        raise TaskError(
            "cross-entropy of one class is constant; for one logit a sample give "
            "loss=torch.nn.functional.binary_cross_entropy_with_logits, for two classes two outputs"
        )


def _moves(
    model: nn.Module, inputs: Inputs, targets: Tensor, loss: Loss, training_step: TrainingStep | None
) -> bool:
    """Whether the gradient of one training step is not zero; the step does not move the weights."""
    model.zero_grad(set_to_none=True)
    with foreign_errors_as(TaskError, "the loss fails on a training batch"), _no_broadcast(), seeded(0):
        if training_step is not None:
            value = training_step(own_model(model), inputs, targets)
        else:
            value = loss(forward(model, inputs), targets)
    if not isinstance(value, Tensor):
        raise TaskError(f"the training loss must be a tensor, got {type(value).__name__}")
    if value.numel() != 1 or not value.requires_grad:
        gradient = "with" if value.requires_grad else "without"
        raise TaskError(
            f"the training loss must be one differentiable number, got shape {tuple(value.shape)} "
            f"{gradient} a gradient"
        )
    if not torch.isfinite(value):
        raise TaskError(f"the training loss is {value.item()} on a training batch")
    with foreign_errors_as(TaskError, "the backward pass fails on a training batch"):
        value.reshape(()).backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if not all(torch.isfinite(gradient).all() for gradient in gradients):
        raise TaskError("the gradient of the training loss is not finite on a training batch")
    return any(bool(gradient.any()) for gradient in gradients)


@contextmanager
def _no_broadcast() -> Iterator[None]:
    """Refuse a loss that compares each output with each target, of which torch only warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=_BROADCAST)
        try:
            yield
        except UserWarning as warning:
            if not str(warning).startswith(_BROADCAST):
                raise
            sizes = str(warning).partition(". ")[0]
            raise TaskError(f"the loss broadcasts: {sizes}; outputs and targets need one shape") from warning
