"""Lai loss (arXiv 2405.07884): a sample's residual counts by how steep the model is where it lies.

The paper scales residuals |f(x) - y| of regression. Cross-entropy is treated as a residual as well: it
is not negative, 0 is perfect, and its gradient with respect to the inputs says how steep the model is in
the direction that matters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from petra_optuna.errors import one_line
from petra_optuna.nn.copying import private_copy
from petra_optuna.nn.inputs import Inputs, forward, mapped, tensors
from petra_optuna.nn.randomness import seeded
from petra_optuna.nn.training import (
    functional_form,
    input_steepness,
    lai_scale,
    mean_absolute_error,
    mean_squared_error,
)
from petra_optuna.operations.context import Context

PROBE_SAMPLES = 4
_SMALLEST_SQUARE = 1e-12
"""Below it a squared residual counts as constant: the square root has no finite slope at zero."""

Loss = Callable[[Tensor, Tensor], Tensor]


def lai_loss(
    model: Callable[[Inputs], Tensor],
    loss: Loss,
    inputs: Inputs,
    targets: Tensor,
    bound: float,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The model's outputs and the mean of ``(scale_i residual_i)^p`` over the samples i.

    p is 2 where the loss is a mean of squares, else 1.

    Args:
        model: Function from inputs to outputs.
        loss: Loss that ``residuals`` knows.
        inputs: Batch with at least one tensor of floating-point numbers.
        targets: Targets of the batch.
        bound: Bound lambda of ``nn.training.penalties.lai_scale``.
        label_smoothing: Label smoothing where the loss is cross-entropy.
    """
    watched = _with_gradient(inputs)
    outputs = model(watched)
    residual, power = residuals(loss, outputs, targets, label_smoothing)
    scale = lai_scale(input_steepness(residual, _floating(watched)), bound)
    return outputs, ((scale * residual) ** power).mean()


def residuals(
    loss: Loss, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, int]:
    """The residual of each sample (B,) and the power p, so that their mean ``residual^p`` is the loss.

    Raises:
        ValueError: When the loss is not one that is known to be such a mean.
    """
    rows = len(targets)
    loss, options = functional_form(loss)
    weighted = options.get("weight") is not None or options.get("ignore_index", -100) != -100
    if loss is functional.cross_entropy and not weighted:
        smoothing = label_smoothing or options.get("label_smoothing", 0.0)
        losses = functional.cross_entropy(outputs, targets, reduction="none", label_smoothing=smoothing)
        return losses.reshape(rows, -1).mean(1), 1
    differences = (outputs.reshape(rows, -1) - targets.reshape(rows, -1)) / options.get("scale", 1.0)
    if loss in (functional.l1_loss, mean_absolute_error):
        return differences.abs().mean(1), 1
    if loss in (functional.mse_loss, mean_squared_error):
        return differences.square().mean(1).clamp_min(_SMALLEST_SQUARE).sqrt(), 2
    raise ValueError("the task's loss is not plain cross-entropy, mean squared or mean absolute error")


def why_no_lai(model: torch.nn.Module, context: Context) -> str | None:
    """Why Lai loss cannot act here, or None where a trial step on a copy of the model passes."""
    task = context.task
    if task.training_step is not None:
        return "the task has a training step of its own"
    inputs, targets = next(task.train.batches(PROBE_SAMPLES, limit=PROBE_SAMPLES))
    if not _floating(inputs):
        return "no input is of floating-point numbers, so there is no gradient with respect to it"
    private = private_copy(model).train()
    try:
        with seeded(context.seed):
            _, loss = lai_loss(lambda given: forward(private, given), task.loss, inputs, targets, 1.0)
            loss.backward()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        return one_line(error)
    return None


def mean_scale(model: torch.nn.Module, context: Context, inputs: Inputs, targets: Tensor) -> float:
    """The mean of the scales that the recipe's Lai loss gives a batch; the model is not changed."""
    watched = _with_gradient(inputs)
    residual, _ = residuals(context.task.loss, forward(model, watched), targets)
    steepness = input_steepness(residual, _floating(watched)).detach()
    return lai_scale(steepness, context.recipe.lambda_lai).mean().item()


def _with_gradient(inputs: Inputs) -> Inputs:
    """The inputs as tensors of their own, those of floating-point numbers with gradient."""

    def copied(tensor: Tensor) -> Tensor:
        return tensor.detach().clone().requires_grad_() if tensor.is_floating_point() else tensor

    return mapped(inputs, copied)


def _floating(inputs: Inputs) -> list[Tensor]:
    return [tensor for tensor in tensors(inputs) if tensor.is_floating_point()]
