"""Training by recipe: optimiser, schedule, augmentation, distillation from the original model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from petra_optuna.nn.descent import descend, parameter_groups
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.randomness import seeded
from petra_optuna.operations.context import Context
from petra_optuna.pipeline import Recipe

MOMENTUM = 0.9


def fit(
    model: nn.Module,
    context: Context,
    epochs: int,
    *,
    extra_loss: Callable[[nn.Module], Tensor] | None = None,
) -> dict[str, Any]:
    """Train ``model`` in place by the context's recipe and leave it in eval mode.

    The result is a function of the model, the context and the number of threads, bit for bit: order,
    augmentation, dropout and users' transforms all follow from ``context.seed``.

    Args:
        model: A private copy of the caller's.
        context: Task, recipe, seed, and the epochs that may be spent.
        epochs: What the node asks for; capped by ``context.epochs``.
        extra_loss: Added to the loss of each step.

    Returns:
        JSON-ready report: ``changed``, ``epochs`` spent, ``loss`` of each, ``distillation`` weight;
        where no epoch may be spent ``changed`` is False with a ``reason``.

    Raises:
        TrainingDiverged: When a loss or a gradient is NaN or infinite.
    """
    spent = min(epochs, context.epochs)
    if spent <= 0:
        model.eval()
        return {"changed": False, "reason": "the budget of epochs is spent", "epochs": 0}
    task, recipe = context.task, context.recipe
    seeds = torch.randint(2**62, (spent,), generator=torch.Generator().manual_seed(context.seed)).tolist()
    objective = _objective(model, context, extra_loss)
    with seeded(context.seed):
        losses = descend(
            model,
            lambda epoch: task.train.batches(
                recipe.batch_size,
                shuffle_seed=seeds[epoch],
                fraction=context.data_fraction,
                augment=True,
            ),
            objective,
            _optimizer(model, recipe),
            schedule=recipe.schedule,
            epochs=spent,
            steps_per_epoch=task.train.steps(recipe.batch_size, context.data_fraction),
        )
    return {"changed": True, "epochs": spent, "loss": losses, **_distillation_report(context)}


def _objective(
    model: nn.Module, context: Context, extra_loss: Callable[[nn.Module], Tensor] | None
) -> Callable[[Inputs, Tensor], Tensor]:
    """The loss of one batch: (1 - w) task loss + w distillation + extra."""
    task, weight = context.task, context.recipe.distillation_weight

    def task_loss(inputs: Inputs, targets: Tensor) -> Tensor:
        if task.training_step is not None:
            return task.training_step(model, inputs, targets)
        outputs = forward(model, inputs)
        loss = task.loss(outputs, targets)
        if weight == 0.0:
            return loss
        with torch.no_grad():
            teacher = forward(task.model, inputs)
        return (1 - weight) * loss + weight * task.distillation(outputs, teacher, context.recipe.temperature)

    def objective(inputs: Inputs, targets: Tensor) -> Tensor:
        loss = task_loss(inputs, targets)
        return loss if extra_loss is None else loss + extra_loss(model)

    return objective


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    groups = parameter_groups(model, recipe.weight_decay)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=MOMENTUM, nesterov=True)
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=recipe.lr, momentum=MOMENTUM)
    return torch.optim.AdamW(groups, lr=recipe.lr)


def _distillation_report(context: Context) -> dict[str, Any]:
    if context.task.training_step is not None:
        return {"distillation": 0.0, "distillation_off": "the task has a training step of its own"}
    return {"distillation": context.recipe.distillation_weight}
