"""What the built-in tasks of images and clips share: a base model, three splits and accuracy."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from petra_optuna.errors import DataError, one_line
from petra_optuna.nn.randomness import seeded
from petra_optuna.nn.training import Loss
from petra_optuna.tasks.base import Optimizer, cached_base, train_base
from petra_optuna.tasks.calibration import drawn
from petra_optuna.tasks.fingerprint import content_sha256
from petra_optuna.tasks.metrics import metric
from petra_optuna.tasks.split import Split
from petra_optuna.tasks.task import Task

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LabeledSplits:
    """Data of a task whose samples are labelled: by a class, by objects of several, or by a value.

    Attributes:
        name: Name of the task.
        splits: ``train``, ``selection`` and, where there is one, ``test``.
        labels: Names of the classes in order of their index; none for values.
        preprocess: JSON-ready description of the input besides its type float32.
    """

    name: str
    splits: Mapping[str, Split]
    labels: tuple[str, ...]
    preprocess: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class BaseRecipe:
    """Recipe by which ``train_base`` trains the base model; a part of the name of its file.

    Attributes:
        epochs: Number of epochs.
        batch_size: Samples a step.
        peak_lr: Highest learning rate of the cycle.
        label_smoothing: Label smoothing of the cross-entropy.
        optimizer: Optimiser, ``sgd`` or ``adamw``.
    """

    epochs: int
    batch_size: int
    peak_lr: float
    label_smoothing: float = 0.0
    optimizer: Optimizer = "sgd"

    def key(self) -> dict[str, Any]:
        """JSON-ready values that the trained weights depend on, by name."""
        key = dataclasses.asdict(self)
        if self.optimizer == "sgd":
            del key["optimizer"]  # bases that were trained before there was a choice keep their files
        return key


def trained_base(
    data: LabeledSplits,
    build_model: Callable[[], nn.Module],
    recipe: BaseRecipe,
    *,
    structure: Mapping[str, Any],
    cache_dir: Path,
    seed: int,
    loss: Loss | None = None,
    notice: str = "",
    bundled: bool = False,
) -> nn.Module:
    """The base model of a task, trained on the first call and read from ``cache_dir`` afterwards.

    Args:
        data: Data of the task, whose training split is read with its augmentation.
        build_model: Makes the untrained network.
        recipe: Recipe of the training.
        structure: JSON-ready values that ``build_model`` depends on.
        cache_dir: Folder in which the base is kept.
        seed: Seed of the base's training.
        loss: Maps outputs and targets to the loss; cross-entropy when None.
        notice: Warning to log before a training that takes long.
        bundled: Whether a package brings the data; otherwise the base is kept for these very samples.

    Raises:
        DataError: When the folder cannot be written.
    """
    train = data.splits["train"]

    def train_once() -> nn.Module:
        if notice:
            logger.warning(notice)
        return train_base(build_model, train, **dataclasses.asdict(recipe), seed=seed, loss=loss)

    content = {} if bundled else {"train": content_sha256(train)}
    key = {**structure, **recipe.key(), "seed": seed, **content}
    return cached_base(cache_dir, data.name, key, build_model, train_once)


def load_checkpoint(network: nn.Module, path: Path, described: str) -> None:
    """Load the weights of a safetensors file into a network.

    Args:
        network: Network to load into.
        path: File that holds the ``state_dict``.
        described: What the network is, in the words of the error.

    Raises:
        DataError: When the file is missing, damaged or of another network.
    """
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DataError(
            f"checkpoint {path} is not a safetensors state_dict of {described}: {one_line(error)}"
        ) from error


def classification_task(
    data: LabeledSplits, model: nn.Module, build_model: Callable[[], nn.Module], *, trained: bool = True
) -> Task:
    """A task of single-label classification by accuracy, calibrated on samples of its training split.

    Args:
        data: Splits, names of the classes and what the input looks like.
        model: Base model.
        build_model: Makes the untrained network of the same structure.
        trained: Whether ``model`` is trained.
    """
    return Task(
        name=data.name,
        model=model,
        initial=build_model,
        train=data.splits["train"],
        calibration=drawn(data.splits["train"]),
        selection=data.splits["selection"],
        test=data.splits["test"],
        metric=metric("accuracy"),
        labels=data.labels,
        preprocess={"dtype": "float32", **data.preprocess},
        trained=trained,
    )


def untrained_task(data: LabeledSplits, build_model: Callable[[], nn.Module], seed: int) -> Task:
    """The task whose model is an untrained network.

    Args:
        data: Splits, names of the classes and what the input looks like.
        build_model: Makes the network.
        seed: Seed of its weights.
    """
    with seeded(seed):
        model = build_model()
    return classification_task(data, model, build_model, trained=False)
