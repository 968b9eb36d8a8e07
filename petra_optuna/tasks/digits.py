"""Handwritten digits, 8x8 grey, from scikit-learn's own package: no download.

Optical Recognition of Handwritten Digits, UCI, 1,797 images, pixel values 0 to 16.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

from petra_optuna.errors import TaskError
from petra_optuna.models import ResidualNet
from petra_optuna.nn.inputs import Inputs
from petra_optuna.nn.normalize import Normalize
from petra_optuna.tasks.base import cached_base, train_base
from petra_optuna.tasks.images import ImageArray, first_input, positions_in_class, random_shift, whole_batch
from petra_optuna.tasks.metrics import metric
from petra_optuna.tasks.split import Split
from petra_optuna.tasks.task import Task, every_kth

WIDTHS, BLOCKS = (48, 96), 2
EPOCHS, BATCH_SIZE, PEAK_LR, LABEL_SMOOTHING = 12, 64, 0.1, 0.05
MEAN, STD = 4.88, 6.02


def build(
    *, data_root: Path | None = None, checkpoint: Path | None = None, cache_dir: Path, seed: int = 0
) -> Task:
    """scikit-learn's 8x8 digits, a residual network of 1.5 MB; needs no files.

    The base is trained on the first call, in seconds, and kept under ``cache_dir``.

    Of each class, in file order, every fifth image is test; of the remaining ones every fifth,
    starting with the first, is selection; the rest is train.

    Args:
        data_root: Not taken: the data is in the package.
        checkpoint: Not taken: the base is trained.
        cache_dir: Where the base is kept.
        seed: Of the base's training.

    Raises:
        TaskError: When ``data_root`` or ``checkpoint`` is given.
        DataError: When the cache cannot be written.
    """
    if data_root is not None or checkpoint is not None:
        raise TaskError("digits brings its data and trains its base; it takes no data root or checkpoint")
    splits = digits_splits()
    key = {
        "widths": WIDTHS,
        "blocks": BLOCKS,
        "epochs": EPOCHS,
        "batch_size": BATCH_SIZE,
        "peak_lr": PEAK_LR,
        "label_smoothing": LABEL_SMOOTHING,
        "normalize": (MEAN, STD),
        "seed": seed,
    }
    model = cached_base(
        cache_dir,
        "digits",
        key,
        build_model,
        lambda: train_base(
            build_model,
            splits["train"],
            epochs=EPOCHS,
            batch_size=BATCH_SIZE,
            peak_lr=PEAK_LR,
            label_smoothing=LABEL_SMOOTHING,
            seed=seed,
        ),
    )
    return Task(
        name="digits",
        model=model,
        initial=build_model,
        train=splits["train"],
        calibration=every_kth(splits["train"]),
        selection=splits["selection"],
        test=splits["test"],
        metric=metric("accuracy"),
        labels=tuple(str(digit) for digit in range(10)),
        preprocess={"layout": "NCHW", "dtype": "float32", "range": [0, 16], "size": [1, 8, 8]},
    )


def build_model() -> nn.Module:
    """The untrained network, normalisation first."""
    network = ResidualNet(1, 10, WIDTHS, BLOCKS)
    return nn.Sequential(OrderedDict(normalize=Normalize([MEAN], [STD]), model=network))


def digits_splits() -> dict[str, Split]:
    """Train, selection and test, as ``build`` describes them."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1)
    targets = torch.from_numpy(digits.target).long()
    test = positions_in_class(targets) % 5 == 0
    rest_images, rest_targets = images[~test], targets[~test]
    selection = positions_in_class(rest_targets) % 5 == 0
    parts = {
        "train": ImageArray(rest_images[~selection], rest_targets[~selection], 1.0),
        "selection": ImageArray(rest_images[selection], rest_targets[selection], 1.0),
        "test": ImageArray(images[test], targets[test], 1.0),
    }
    return {
        name: Split(part, whole_batch, augment=_augment if name == "train" else None)
        for name, part in parts.items()
    }


def _augment(inputs: Inputs, generator: torch.Generator) -> Inputs:
    return (random_shift(first_input(inputs), 1, "constant", generator),)
