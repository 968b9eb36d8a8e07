"""Training by recipe: optimiser, schedule, augmentation, distillation from the original model."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from petra_optuna.nn.batch_norm import norms_of
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.outputs import own_model
from petra_optuna.nn.randomness import seeded
from petra_optuna.nn.training import Loss, forward_in, parameter_groups, run_epochs, with_label_smoothing
from petra_optuna.operations.context import Context
from petra_optuna.operations.lai import lai_loss
from petra_optuna.operations.precision import OWN_STEP, precision_of
from petra_optuna.pipeline import Recipe

MOMENTUM = 0.9
NO_TEACHER = "the task's model is not trained"

ExtraLoss = Callable[[nn.Module, torch.dtype | None, Tensor], Tensor]
"""Maps the model, the type of its forward passes (None for float32) and the task's loss of a batch, without
distillation, to what is added to the loss."""


def fit(
    model: nn.Module,
    context: Context,
    epochs: int,
    *,
    extra_loss: ExtraLoss | None = None,
    lai_bound: float | None = None,
    only_float32: str | None = None,
    snapshot: Callable[[nn.Module], nn.Module] = copy.deepcopy,
) -> dict[str, Any]:
    """Train ``model`` in place by the context's recipe and leave it in eval mode.

    The result is a function of the model, the context, the number of threads and the precision, bit for
    bit: order, augmentation, dropout and users' transforms all follow from ``context.seed``.

    Args:
        model: A private copy of the caller's.
        context: Task, recipe, seed, and the epochs that may be spent.
        epochs: Epochs that the node asks for; ``context.epochs`` is the limit.
        extra_loss: Term that is added to the loss of each step.
        lai_bound: Bound of the scales of the residuals (``operations.lai``), or None for the plain loss; only
            where ``why_no_lai`` gives no reason.
        only_float32: Reason why forward passes must run in float32; None where ``precision_of`` decides.
        snapshot: Function from the model in training to a copy as the node would return it, for
            ``context.on_step``.

    Returns:
        JSON-ready report: ``changed``, ``epochs`` spent, ``loss`` of each, ``precision``, ``distillation``
        weight, and the parts of the recipe that could not be followed; where no epoch may be spent
        ``changed`` is False with a ``reason``.

    Raises:
        TrainingDiverged: When a loss or a gradient is NaN or infinite, or the loss diverges.
    """
    spent = min(epochs, context.epochs)
    if spent <= 0:
        model.eval()
        return {"changed": False, "reason": "the budget of epochs is spent", "epochs": 0}
    task, recipe = context.task, context.recipe
    seeds = torch.randint(2**62, (spent,), generator=torch.Generator().manual_seed(context.seed)).tolist()
    precision = precision_of(model, context, only_float32)
    blind_loss = _BlindLoss(task.loss)
    steps, on_step = task.train.steps(recipe.batch_size, context.data_fraction), context.on_step
    with seeded(context.seed):
        losses = run_epochs(
            model,
            lambda epoch: task.train.batches(
                recipe.batch_size,
                shuffle_seed=seeds[epoch],
                fraction=context.data_fraction,
                augment=True,
            ),
            _objective(model, context, precision.dtype, extra_loss, lai_bound, blind_loss),
            _optimizer(model, recipe),
            schedule=recipe.schedule,
            epochs=spent,
            steps_per_epoch=steps,
            clip_norm=recipe.clip_norm,
            in_evaluation=norms_of(model, task.fixed_norms),
            blind_loss=blind_loss,
            after_step=(
                None
                if on_step is None
                else lambda taken: on_step(lambda: snapshot(model).eval(), taken / steps)
            ),
        )
    return {"changed": True, "epochs": spent, "loss": losses, **precision.report(), **_followed(context)}


def plain_loss(model: nn.Module, batch: tuple[Inputs, Tensor], context: Context) -> Tensor:
    """The task's loss of one batch, without anything that the recipe adds."""
    inputs, targets = batch
    if context.task.training_step is not None:
        return context.task.training_step(own_model(model), inputs, targets)
    return context.task.loss(forward(model, inputs), targets)


class _BlindLoss:
    """Loss of the first batch where each sample gets the mean of the outputs; 1 where there are no outputs.

    Of cross-entropy it is that of the classes' shares, of squared errors the variance of the targets.
    """

    def __init__(self, loss: Loss) -> None:
        self._loss, self._value = loss, math.nan

    def __call__(self) -> float:
        return self._value if math.isfinite(self._value) and self._value > 0 else 1.0

    @torch.no_grad()
    def note(self, outputs: Tensor, targets: Tensor) -> None:
        """Compute it on the first call."""
        if math.isnan(self._value):
            mean = outputs.mean(0, keepdim=True).expand_as(outputs)
            self._value = float(self._loss(mean, targets))


def _objective(
    model: nn.Module,
    context: Context,
    dtype: torch.dtype | None,
    extra_loss: ExtraLoss | None,
    lai_bound: float | None,
    blind_loss: _BlindLoss,
) -> Callable[[Inputs, Tensor], Tensor]:
    """The loss of one batch: (1 - w) task loss + w distillation + extra."""
    task, criterion = context.task, _task_loss(context)
    weight = context.recipe.distillation_weight if task.trained else 0.0
    smoothing = context.recipe.label_smoothing

    def mixed(inputs: Inputs, targets: Tensor) -> tuple[Tensor, Tensor]:
        if task.training_step is not None:
            loss = task.training_step(own_model(model), inputs, targets)
            return loss, loss
        if lai_bound is None:
            outputs = forward_in(model, inputs, dtype)
            loss = criterion(outputs, targets)
        else:
            outputs, loss = lai_loss(
                lambda given: forward_in(model, given, dtype),
                task.loss,
                inputs,
                targets,
                lai_bound,
                smoothing,
            )
        blind_loss.note(outputs, targets)
        if weight == 0.0:
            return loss, loss
        with torch.no_grad():
            teacher = forward_in(task.model, inputs, dtype)
        distilled = task.distillation(outputs, teacher, context.recipe.temperature)
        return (1 - weight) * loss + weight * distilled, loss

    def objective(inputs: Inputs, targets: Tensor) -> Tensor:
        loss, of_task = mixed(inputs, targets)
        return loss if extra_loss is None else loss + extra_loss(model, dtype, of_task)

    return objective


def _task_loss(context: Context) -> Callable[[Tensor, Tensor], Tensor]:
    """The task's loss, with the recipe's label smoothing where it is cross-entropy."""
    smoothed = with_label_smoothing(context.task.loss, context.recipe.label_smoothing)
    return context.task.loss if smoothed is None else smoothed


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    groups = parameter_groups(model, recipe.weight_decay)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=MOMENTUM, nesterov=True, fused=True)
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=recipe.lr, momentum=MOMENTUM)
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)


def _followed(context: Context) -> dict[str, Any]:
    """The recipe's distillation and label smoothing as they were used, with reasons where they were not."""
    task, recipe = context.task, context.recipe
    report: dict[str, Any] = {"distillation": recipe.distillation_weight}
    if task.training_step is not None:
        report |= {"distillation": 0.0, "distillation_off": OWN_STEP}
    elif not task.trained and recipe.distillation_weight > 0:
        report |= {"distillation": 0.0, "distillation_off": NO_TEACHER}
    if recipe.label_smoothing > 0:
        if task.training_step is not None:
            report["label_smoothing_off"] = OWN_STEP
        elif with_label_smoothing(task.loss, recipe.label_smoothing) is None:
            report["label_smoothing_off"] = "the task's loss is not cross-entropy"
    return report
