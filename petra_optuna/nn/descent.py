"""The one training loop: epochs of gradient steps under a schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from petra_optuna.errors import TrainingDiverged
from petra_optuna.nn.inputs import Inputs
from petra_optuna.nn.schedules import schedule_factor

Batches = Iterable[tuple[Inputs, Tensor]]
CLIP_NORM = 5.0


def descend(
    model: nn.Module,
    batches: Callable[[int], Batches],
    loss: Callable[[Inputs, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    schedule: str,
    epochs: int,
    steps_per_epoch: int,
) -> list[float]:
    """Train ``model`` in place, with gradients clipped at norm 5, and leave it in eval mode.

    Args:
        model: Switched to training mode first.
        batches: Maps the number of an epoch to its batches.
        loss: Maps a batch to one number; closes over the model.
        optimizer: Over the model's parameters, at the peak learning rate.
        schedule: A name that ``schedule_factor`` knows.
        epochs: How often to read the data.
        steps_per_epoch: Batches an epoch, for the schedule.

    Returns:
        The mean loss of each epoch.

    Raises:
        TrainingDiverged: When a loss or a gradient is NaN or infinite.
    """
    total = epochs * steps_per_epoch
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: schedule_factor(schedule, min(step / total, 1.0))
    )
    model.train()
    means = []
    for epoch in range(epochs):
        losses = []
        for step, (inputs, targets) in enumerate(batches(epoch), start=1):
            losses.append(_step(model, loss(inputs, targets), optimizer, f"epoch {epoch + 1}, step {step}"))
            scheduler.step()
        means.append(math.fsum(losses) / len(losses))
    model.eval()
    return means


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Trainable parameters in two groups: matrices and kernels decay, biases and norm scales do not."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if parameter.ndim > 1]
    kept = [parameter for parameter in trainable if parameter.ndim <= 1]
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _step(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer, where: str) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingDiverged(f"the loss is {value} in {where}; a lower learning rate may help")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM).item()
    if not math.isfinite(norm):
        raise TrainingDiverged(f"the gradient's norm is {norm} in {where}; a lower learning rate may help")
    optimizer.step()
    return value
