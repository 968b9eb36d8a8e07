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
from petra_optuna.tasks.arrays import array_split, first_input
from petra_optuna.tasks.classification import BaseRecipe, LabeledSplits, classification_task, trained_base
from petra_optuna.tasks.images import positions_in_class, random_shift
from petra_optuna.tasks.split import Split
from petra_optuna.tasks.task import Task

WIDTHS, BLOCKS = (48, 96), 2
RECIPE = BaseRecipe(epochs=12, batch_size=64, peak_lr=0.1, label_smoothing=0.05)
MEAN, STD = 4.88, 6.02


def build(
    *, data_root: Path | None = None, checkpoint: Path | None = None, cache_dir: Path, seed: int = 0
) -> Task:
    """scikit-learn's 8x8 digits, a residual network of 1.5 MB; needs no files.

    The base is trained on the first call, in seconds, and kept under ``cache_dir``.

    In each class, in file order, every fifth image is test, starting with the first; every fifth of the
    remaining ones is selection; the rest is train.

    Args:
        data_root: Must be None: the data is in the package.
        checkpoint: Must be None: the base is trained.
        cache_dir: Folder in which the base is kept.
        seed: Seed of the base's training.

    Raises:
        TaskError: When ``data_root`` or ``checkpoint`` is given.
        DataError: When the cache cannot be written.
    """
    if data_root is not None or checkpoint is not None:
        raise TaskError("digits brings its data and trains its base; give no `data_root` and no `checkpoint`")
    data = LabeledSplits(
        name="digits",
        splits=digits_splits(),
        labels=tuple(str(digit) for digit in range(10)),
        preprocess={"layout": "NCHW", "range": [0, 16], "size": [1, 8, 8]},
    )
    structure = {"widths": WIDTHS, "blocks": BLOCKS, "normalize": (MEAN, STD)}
    model = trained_base(
        data, build_model, RECIPE, structure=structure, cache_dir=cache_dir, seed=seed, bundled=True
    )
    return classification_task(data, model, build_model)


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
    return {
        "train": array_split(rest_images[~selection], rest_targets[~selection], 1.0, _augment),
        "selection": array_split(rest_images[selection], rest_targets[selection], 1.0),
        "test": array_split(images[test], targets[test], 1.0),
    }


def _augment(inputs: Inputs, generator: torch.Generator) -> Inputs:
    return (random_shift(first_input(inputs), 1, "constant", generator),)
