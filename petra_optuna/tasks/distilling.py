"""Which distillation loss a task gets: it follows from its loss, its outputs and its targets."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from petra_optuna.errors import FOREIGN_ERRORS, TaskError, foreign_errors_as
from petra_optuna.nn.randomness import seeded
from petra_optuna.nn.training import (
    Loss,
    functional_form,
    mean_absolute_error,
    mean_squared_error,
    output_matching_loss,
    sigmoid_label_loss,
    soft_label_loss,
)

Distillation = Callable[[Tensor, Tensor, float], Tensor]
Kind = Literal["classes", "labels", "values"]

_OF_CLASSES = (functional.cross_entropy, functional.nll_loss, functional.multi_margin_loss)
_OF_LABELS = (
    functional.binary_cross_entropy_with_logits,
    functional.multilabel_soft_margin_loss,
    functional.soft_margin_loss,
)
_OF_VALUES = (
    *(functional.mse_loss, functional.l1_loss, functional.smooth_l1_loss, functional.huber_loss),
    *(functional.binary_cross_entropy, mean_squared_error, mean_absolute_error),
)
_SURE = 3.0
"""A logit of which the sigmoid is 0.95: losses of labels have nearly no slope left on the right side."""
_TRIED_TEMPERATURE = 4.0


def distillation_of(
    asked: Kind | Distillation | None, loss: Loss, outputs: Tensor, targets: Tensor
) -> Distillation:
    """The distillation loss of a task, tried on the outputs of its model.

    A known loss says what it reads. Of any other it is tried whether it stays the same when all classes of a
    position move together (softmax), or loses its slope where outputs are far on the side of their targets
    (independent labels). All other outputs, and probabilities, are matched value by value.

    Args:
        asked: ``classes`` for softmax over the axis of the classes, ``labels`` for a sigmoid of each output,
            ``values`` for squared differences, a function of one's own, or None to choose.
        loss: The task's loss.
        outputs: Outputs of the model on a training batch (B, ...).
        targets: Targets of the batch (B, ...).

    Raises:
        TaskError: When the kind is unknown, or the loss does not fit the outputs.
    """
    outputs = outputs.detach().float()
    if callable(asked):
        chosen = asked
    elif asked is not None and asked not in get_args(Kind):
        kinds = ", ".join(get_args(Kind))
        raise TaskError(f"`distillation` must be one of {kinds}, a function or None, got {asked!r}")
    else:
        chosen = _of_kind(asked or _kind(loss, outputs, targets), loss, outputs, targets)
    _try(chosen, outputs)
    return chosen


def _of_kind(kind: Kind, loss: Loss, outputs: Tensor, targets: Tensor) -> Distillation:
    if kind == "labels":
        return sigmoid_label_loss
    if kind == "values":
        function, options = functional_form(loss)
        scaled = function in (mean_squared_error, mean_absolute_error) and "scale" in options
        return functools.partial(output_matching_loss, **options) if scaled else output_matching_loss
    if outputs.ndim == 2:
        return soft_label_loss
    return functools.partial(soft_label_loss, axis=_class_axis(loss, outputs, targets) or 1)


def _kind(loss: Loss, outputs: Tensor, targets: Tensor) -> Kind:
    function, _ = functional_form(loss)
    for kinds, kind in ((_OF_CLASSES, "classes"), (_OF_LABELS, "labels"), (_OF_VALUES, "values")):
        if function in kinds:
            return kind  # type: ignore[return-value]
    if _are_probabilities(outputs):
        return "values"
    if _class_axis(loss, outputs, targets) is not None:
        return "classes"
    return "labels" if _saturates(loss, outputs, targets) else "values"


def _are_probabilities(outputs: Tensor) -> bool:
    """Whether each row of outputs (B, C), or each position's, is a distribution over several classes."""
    if outputs.min() < 0 or outputs.max() > 1:
        return False
    axes = [axis for axis in range(1, outputs.ndim) if outputs.shape[axis] > 1]
    return any(torch.allclose(outputs.sum(axis), torch.tensor(1.0), atol=1e-3) for axis in axes)


def _class_axis(loss: Loss, outputs: Tensor, targets: Tensor) -> int | None:
    """The axis over which the loss takes a softmax, or None."""
    if functional_form(loss)[0] in _OF_CLASSES:
        return 1
    axes = [axis for axis in range(1, outputs.ndim) if outputs.shape[axis] > 1]
    without = {axis: (*outputs.shape[:axis], *outputs.shape[axis + 1 :]) for axis in axes}
    of_indices = [
        axis for axis in axes if not targets.is_floating_point() and without[axis] == tuple(targets.shape)
    ]
    for axis in sorted(axes, key=lambda axis: axis not in of_indices):
        if _is_unmoved(loss, outputs, targets, axis):
            return axis
    return of_indices[0] if of_indices else None


def _is_unmoved(loss: Loss, outputs: Tensor, targets: Tensor, axis: int) -> bool:
    """Whether the loss stays when all classes of a position move together, and changes when each moves."""
    generator = torch.Generator().manual_seed(0)
    together = list(outputs.shape)
    together[axis] = 1
    moved = outputs + torch.randn(together, generator=generator)
    changed = outputs + torch.randn(outputs.shape, generator=generator)
    values = [_value(loss, given, targets) for given in (outputs, moved, changed)]
    if any(value is None for value in values):
        return False
    before, shifted, other = (value for value in values if value is not None)
    tolerance = 1e-4 * (1 + abs(before))
    return abs(before - shifted) < tolerance < abs(before - other)


def _saturates(loss: Loss, outputs: Tensor, targets: Tensor) -> bool:
    """Whether the slope of the loss vanishes where outputs are far on the side of their binary targets."""
    values = set(targets.reshape(-1).tolist()) if targets.numel() == outputs.numel() else set()
    if not values or not (values <= {0, 1} or values <= {-1, 1}):
        return False
    sides = torch.where(targets.reshape(outputs.shape) > 0, _SURE, -_SURE).float()
    right, wrong = (_slope(loss, given, targets) for given in (sides, -sides))
    return right is not None and wrong is not None and right < 0.2 * wrong


def _value(loss: Loss, outputs: Tensor, targets: Tensor) -> float | None:
    try:
        with torch.no_grad(), seeded(0):
            return float(loss(outputs, targets))
    except FOREIGN_ERRORS:  # outside of what the loss takes
        return None


def _slope(loss: Loss, outputs: Tensor, targets: Tensor) -> float | None:
    outputs = outputs.clone().requires_grad_()
    try:
        with torch.enable_grad(), seeded(0):
            (gradient,) = torch.autograd.grad(loss(outputs, targets), outputs)
    except FOREIGN_ERRORS:  # outside of what the loss takes
        return None
    return float(gradient.abs().sum())


def _try(distillation: Distillation, teacher: Tensor) -> None:
    """Check that the loss is one number that pulls a student which differs from the teacher.

    Raises:
        TaskError: When it is not.
    """
    noise = torch.randn(teacher.shape, generator=torch.Generator().manual_seed(0))
    student = (teacher + noise * teacher.std(correction=0).clamp_min(0.1)).requires_grad_()
    advice = "give `distillation`: classes, labels, values or a function"
    with torch.enable_grad(), foreign_errors_as(TaskError, f"the distillation loss fails ({advice})"):
        value = distillation(student, teacher, _TRIED_TEMPERATURE)
        (gradient,) = torch.autograd.grad(value, student, allow_unused=True)
    if not torch.isfinite(value) or gradient is None or not gradient.abs().sum() > 0:
        raise TaskError(
            f"the distillation loss of outputs {tuple(teacher.shape)} is {value.item():.3g} and does not "
            f"pull; {advice}"
        )
