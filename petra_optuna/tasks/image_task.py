"""What the built-in image tasks share: a base model trained by one recipe, three splits and accuracy."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from petra_optuna.tasks.base import cached_base, train_base
from petra_optuna.tasks.calibration import drawn
from petra_optuna.tasks.fingerprint import content_sha256
from petra_optuna.tasks.metrics import metric
from petra_optuna.tasks.split import Split
from petra_optuna.tasks.task import Task

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class BaseRecipe:
    """Recipe by which ``train_base`` trains the base model; a part of the name of its file.

    Attributes:
        epochs: Number of epochs.
        batch_size: Samples a step.
        peak_lr: Highest learning rate of the cycle.
        label_smoothing: Label smoothing of the cross-entropy.
    """

    epochs: int
    batch_size: int
    peak_lr: float
    label_smoothing: float


def trained_base(
    name: str,
    build_model: Callable[[], nn.Module],
    train: Split,
    recipe: BaseRecipe,
    *,
    structure: Mapping[str, Any],
    cache_dir: Path,
    seed: int,
    notice: str = "",
    bundled: bool = False,
) -> nn.Module:
    """The base model of a task, trained on the first call and read from ``cache_dir`` afterwards.

    Args:
        name: Name of the task.
        build_model: Makes the untrained network.
        train: Training split, read with its augmentation.
        recipe: Recipe of the training.
        structure: JSON-ready values that ``build_model`` depends on.
        cache_dir: Folder in which the base is kept.
        seed: Seed of the base's training.
        notice: Warning to log before a training that takes long.
        bundled: Whether a package brings the data; otherwise the base is kept for these very samples.

    Raises:
        DataError: When the folder cannot be written.
    """

    def train_once() -> nn.Module:
        if notice:
            logger.warning(notice)
        return train_base(build_model, train, **dataclasses.asdict(recipe), seed=seed)

    data = {} if bundled else {"train": content_sha256(train)}
    key = {**structure, **dataclasses.asdict(recipe), "seed": seed, **data}
    return cached_base(cache_dir, name, key, build_model, train_once)


def image_task(
    name: str,
    model: nn.Module,
    build_model: Callable[[], nn.Module],
    splits: Mapping[str, Split],
    *,
    labels: Sequence[str],
    preprocess: Mapping[str, Any],
) -> Task:
    """A task of single-label classification by accuracy, calibrated on samples of its training split.

    Args:
        name: Name of the task.
        model: Base model, trained.
        build_model: Makes the untrained network of the same structure.
        splits: ``train``, ``selection`` and ``test``.
        labels: Names of the classes in order of their index.
        preprocess: JSON-ready description of the input besides its layout NCHW and type float32.
    """
    return Task(
        name=name,
        model=model,
        initial=build_model,
        train=splits["train"],
        calibration=drawn(splits["train"]),
        selection=splits["selection"],
        test=splits["test"],
        metric=metric("accuracy"),
        labels=tuple(labels),
        preprocess={"layout": "NCHW", "dtype": "float32", **preprocess},
    )
