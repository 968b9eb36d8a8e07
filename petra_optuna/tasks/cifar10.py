"""CIFAR-10 and torchvision's ResNets, normalisation inside."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from petra_optuna.errors import DataError, one_line
from petra_optuna.nn.inputs import Inputs
from petra_optuna.nn.normalize import Normalize
from petra_optuna.tasks.arrays import array_split, first_input
from petra_optuna.tasks.classification import (
    BaseRecipe,
    LabeledSplits,
    classification_task,
    load_checkpoint,
    trained_base,
)
from petra_optuna.tasks.image_folder import ImageFolder, read_image_folder
from petra_optuna.tasks.images import positions_in_class, random_flip, random_shift
from petra_optuna.tasks.task import Task
from petra_optuna.tasks.torchvision_shim import load_torchvision

SIDE = 32
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
RECIPE = BaseRecipe(epochs=22, batch_size=128, peak_lr=0.1, label_smoothing=0.05)
ARCHIVE_FOLDER = "cifar-10-batches-py"


def build(
    *,
    data_root: Path | None = None,
    checkpoint: Path | None = None,
    cache_dir: Path,
    seed: int = 0,
) -> Task:
    """CIFAR-10, torchvision's ResNet-18; images from ``data_root``, else the official archive.

    Selection is every tenth training image of each class in file order, starting with the first.

    Args:
        data_root: A folder with ``{train,test}/<class>/*.jpg|png``, or with such a ``cifar10`` folder,
            or with the official archive's ``cifar-10-batches-py``. When None the official archive is
            downloaded to ``cache_dir``.
        checkpoint: safetensors with the state_dict of ``resnet18(num_classes=10)``. When None the base
            is trained, which takes about a minute an epoch on two cores, and kept under ``cache_dir``.
        cache_dir: Folder of the archive, the decoded pixels and the base.
        seed: Seed of the base's training.

    Raises:
        DataError: When images or checkpoint are missing, damaged or of another layout.
    """
    data = read_cifar10(data_root, cache_dir)
    if checkpoint is not None:
        model = build_model()
        load_checkpoint(model.get_submodule("model"), checkpoint, "resnet18(num_classes=10)")
    else:
        model = trained_base(
            data,
            build_model,
            RECIPE,
            structure={"normalize": (MEAN, STD)},
            cache_dir=cache_dir,
            seed=seed,
            notice=f"no checkpoint given: training the base for {RECIPE.epochs} epochs, a minute or so each",
        )
    return classification_task(data, model.eval(), build_model)


def build_model(depth: int = 18) -> nn.Module:
    """The untrained network: normalisation, then a ResNet with torchvision's own stem.

    Args:
        depth: Number of layers of the ResNet: 18, 34, 50, 101 or 152.
    """
    network = load_torchvision().models.get_model(f"resnet{depth}", num_classes=10)
    return nn.Sequential(OrderedDict(normalize=Normalize(MEAN, STD), model=network))


def read_cifar10(data_root: Path | None, cache_dir: Path) -> LabeledSplits:
    """The splits that ``build`` describes, images (3, 32, 32) in [0, 1].

    Args:
        data_root: Folder of the images; the official archive is downloaded when None.
        cache_dir: Folder of the archive and the decoded pixels.

    Raises:
        DataError: When images are missing, damaged or of another layout.
    """
    train, test = _read(data_root, cache_dir)
    selected = positions_in_class(train.targets) % 10 == 0
    splits = {
        "train": array_split(train.images[~selected], train.targets[~selected], 255.0, _augment),
        "selection": array_split(train.images[selected], train.targets[selected], 255.0),
        "test": array_split(test.images, test.targets, 255.0),
    }
    preprocess = {"layout": "NCHW", "colour": "RGB", "range": [0, 1], "size": [3, SIDE, SIDE]}
    return LabeledSplits("cifar10", splits, train.classes, preprocess)


def _read(data_root: Path | None, cache_dir: Path) -> tuple[ImageFolder, ImageFolder]:
    if data_root is None:
        return _read_archive(cache_dir / "cifar10", download=True)
    for root in (data_root, data_root / "cifar10"):
        if (root / ARCHIVE_FOLDER).is_dir():
            return _read_archive(root, download=False)
        if (root / "train").is_dir() and (root / "test").is_dir():
            train = read_image_folder(root / "train", SIDE, expected_classes=10, cache_dir=cache_dir)
            test = read_image_folder(root / "test", SIDE, expected_classes=10, cache_dir=cache_dir)
            if train.classes != test.classes:
                raise DataError(f"{root}/train and {root}/test have different class folders")
            return train, test
    raise DataError(
        f"no CIFAR-10 in {data_root}: expected train/<class>/*.jpg and test/<class>/*.jpg there or in "
        f"its folder cifar10, or {ARCHIVE_FOLDER}; leave `data_root` out to download the archive"
    )


def _read_archive(root: Path, *, download: bool) -> tuple[ImageFolder, ImageFolder]:
    parts = []
    for train in (True, False):
        try:
            part = load_torchvision().datasets.CIFAR10(str(root), train=train, download=download)
        except (OSError, RuntimeError) as error:
            advice = "give a `data_root` with train/<class>/*.jpg and test/<class>/*.jpg"
            raise DataError(f"CIFAR-10 cannot be read from {root} ({one_line(error)}); {advice}") from error
        images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
        parts.append(ImageFolder(images, torch.tensor(part.targets), tuple(part.classes)))
    return parts[0], parts[1]


def _augment(inputs: Inputs, generator: torch.Generator) -> Inputs:
    return (random_flip(random_shift(first_input(inputs), 4, "reflect", generator), generator),)
