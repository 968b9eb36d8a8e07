"""What the tasks of series with values as targets share: a base model, losses on their scale, a metric."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from torch import nn

from petra_optuna.nn.training import Loss, functional_form, output_matching_loss
from petra_optuna.tasks.calibration import drawn
from petra_optuna.tasks.classification import BaseRecipe, LabeledSplits, load_checkpoint, trained_base
from petra_optuna.tasks.metrics import Metric
from petra_optuna.tasks.task import Task, loss_of


@dataclasses.dataclass(frozen=True)
class BaseOrigin:
    """Where the base model comes from.

    Attributes:
        checkpoint: safetensors with the network's state_dict; None to train.
        cache_dir: Folder in which a trained base is kept.
        seed: Seed of its training.
    """

    checkpoint: Path | None
    cache_dir: Path
    seed: int


def base_of(
    data: LabeledSplits,
    build_model: Callable[[], nn.Module],
    recipe: BaseRecipe,
    origin: BaseOrigin,
    loss: Loss | None = None,
) -> nn.Module:
    """The base model of a series, read from a checkpoint, or trained on the first call and kept.

    Args:
        data: Splits, and what the input looks like.
        build_model: Makes the untrained network.
        recipe: Recipe of the base's training.
        origin: Where the base comes from.
        loss: Maps outputs and targets to the loss; cross-entropy when None.

    Raises:
        DataError: When the checkpoint is of another network, or the folder cannot be written.
    """
    if origin.checkpoint is not None:
        network = build_model()
        load_checkpoint(network, origin.checkpoint, f"InceptionTime for the task {data.name}")
        return network.eval()
    name = "cross_entropy" if loss is None else functional_form(loss)[0].__name__
    return trained_base(
        data,
        build_model,
        recipe,
        structure={"network": repr(build_model()), "loss": name},
        cache_dir=origin.cache_dir,
        seed=origin.seed,
        loss=loss,
        notice=f"no checkpoint given: training the base for {recipe.epochs} epochs",
    )


def regression_task(
    data: LabeledSplits,
    build_model: Callable[[], nn.Module],
    recipe: BaseRecipe,
    metric: Metric,
    target_std: float,
    origin: BaseOrigin,
    block: int,
) -> Task:
    """A task of values by InceptionTime.

    Losses, that of distillation too, are in standard deviations of the target: so learning rates, clipping
    and the weights of regularisers mean what they mean for classes.

    Args:
        data: Splits, and what the input looks like.
        build_model: Makes the untrained network.
        recipe: Recipe of the base's training.
        metric: Metric of quality.
        target_std: Standard deviation of the targets of train.
        origin: Where the base comes from.
        block: Neighbouring samples that depend on each other (``Task.block``).

    Raises:
        DataError: When the checkpoint is of another network, or the folder cannot be written.
    """
    loss = loss_of(metric, target_std)
    return Task(
        name=data.name,
        model=base_of(data, build_model, recipe, origin, loss),
        initial=build_model,
        train=data.splits["train"],
        calibration=drawn(data.splits["train"]),
        selection=data.splits["selection"],
        test=data.splits["test"],
        metric=metric,
        loss=loss,
        distillation=functools.partial(output_matching_loss, scale=target_std),
        preprocess={"dtype": "float32", **data.preprocess},
        block=block,
    )
