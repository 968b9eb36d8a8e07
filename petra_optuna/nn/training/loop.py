"""The one training loop: epochs of gradient steps, their learning-rate schedule and threads."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from petra_optuna.errors import TrainingDiverged
from petra_optuna.nn.inputs import Inputs

Batches = Iterable[tuple[Inputs, Tensor]]
DIVERGENCE_FACTOR = 10.0
"""An epoch's mean loss may be this many times the first loss."""
WARM_UP_SHARE = 0.3
"""Share of the steps in which ``one_cycle`` rises."""
START_FACTOR = 1 / 25
"""Share of the peak learning rate with which ``one_cycle`` starts."""


def run_epochs(
    model: nn.Module,
    batches: Callable[[int], Batches],
    loss: Callable[[Inputs, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    schedule: str,
    epochs: int,
    steps_per_epoch: int,
    clip_norm: float = 5.0,
    blind_loss: Callable[[], float] = lambda: 1.0,
    after_step: Callable[[int], None] | None = None,
    in_evaluation: Sequence[nn.Module] = (),
) -> list[float]:
    """Train ``model`` in place and leave it in eval mode.

    A run counts as diverged when an epoch's mean loss is above ``10 max(first, blind)``, ``first`` being the
    loss of the very first step, and is not falling: it is the last epoch, or its loss is above that of
    the epoch before. ``blind``, the scale of the losses, keeps a model that starts almost perfect from
    failing for losing a little.

    Args:
        model: Model to train; it is switched to training mode first.
        batches: Maps the number of an epoch to its batches.
        loss: Maps a batch to one number; closes over the model.
        optimizer: Optimiser of the model's parameters, at the peak learning rate.
        schedule: Name of a schedule that ``schedule_factor`` knows.
        epochs: Number of times to read the data.
        steps_per_epoch: Number of batches in an epoch, for the schedule.
        clip_norm: Euclidean norm to which longer gradients are shortened.
        blind_loss: Gives, after the first epoch, the loss of a model that gives each sample the same outputs.
        after_step: Called after each step with the number of steps taken; what it raises ends the training.
        in_evaluation: Modules of the model that stay in evaluation mode.

    Returns:
        The mean loss of each epoch.

    Raises:
        TrainingDiverged: When a loss or a gradient is NaN or infinite, or the loss diverges.
    """
    total = epochs * steps_per_epoch
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: schedule_factor(schedule, min(step / total, 1.0))
    )
    model.train()
    for module in in_evaluation:
        module.eval()
    means: list[float] = []
    limit = math.inf
    for epoch in range(epochs):
        losses = []
        for step, (inputs, targets) in enumerate(batches(epoch), start=1):
            where = f"epoch {epoch + 1}, step {step}"
            losses.append(_step(model, loss(inputs, targets), optimizer, clip_norm, where))
            scheduler.step()
            if after_step is not None:
                after_step(epoch * steps_per_epoch + step)
        if epoch == 0:
            limit = DIVERGENCE_FACTOR * max(losses[0], blind_loss())
        means.append(math.fsum(losses) / len(losses))
        _check_converges(means, limit, last=epoch == epochs - 1)
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


def schedule_factor(schedule: str, progress: float) -> float:
    """Factor of the peak learning rate.

    Args:
        schedule: ``constant``; ``cosine``, from 1 down to 0; ``one_cycle``, up from 1/25 to 1 over the
            first 30 % and down to 0 after, both along a cosine (Smith and Topin, arXiv 1708.07120).
        progress: Share of the steps that were taken, 0 to 1.

    Raises:
        ValueError: When the schedule is unknown.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return _half_cosine(progress)
    if schedule == "one_cycle":
        if progress < WARM_UP_SHARE:
            return 1.0 - (1.0 - START_FACTOR) * _half_cosine(progress / WARM_UP_SHARE)
        return _half_cosine((progress - WARM_UP_SHARE) / (1.0 - WARM_UP_SHARE))
    raise ValueError(f"`schedule` must be one of constant, cosine, one_cycle, got {schedule!r}")


@contextlib.contextmanager
def training_threads(threads: int) -> Iterator[None]:
    """Let PyTorch compute with so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_converges(means: list[float], limit: float, *, last: bool) -> None:
    rises = len(means) > 1 and means[-1] > means[-2]
    if means[-1] > limit and (rises or last):
        raise TrainingDiverged(
            f"the mean loss of epoch {len(means)} is {means[-1]:.3g}, the training may reach {limit:.3g}; "
            "a lower learning rate may help"
        )


def _step(
    model: nn.Module,
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    clip_norm: float,
    where: str,
) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingDiverged(f"the loss is {value} in {where}; a lower learning rate may help")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm).item()
    if not math.isfinite(norm):
        raise TrainingDiverged(f"the gradient's norm is {norm} in {where}; a lower learning rate may help")
    optimizer.step()
    return value


def _half_cosine(share: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * share))
