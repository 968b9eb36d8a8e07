"""CIFAR-10 and torchvision's ResNet-18, normalisation inside."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from petra_optuna.errors import DataError, one_line
from petra_optuna.nn.inputs import Inputs
from petra_optuna.nn.normalize import Normalize
from petra_optuna.tasks.image_folder import ImageFolder, read_image_folder
from petra_optuna.tasks.image_task import BaseRecipe, image_task, trained_base
from petra_optuna.tasks.images import first_input, image_split, positions_in_class, random_flip, random_shift
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
    train, test = _read(data_root, cache_dir)
    selected = positions_in_class(train.targets) % 10 == 0
    splits = {
        "train": image_split(train.images[~selected], train.targets[~selected], 255.0, _augment),
        "selection": image_split(train.images[selected], train.targets[selected], 255.0),
        "test": image_split(test.images, test.targets, 255.0),
    }
    if checkpoint is not None:
        model = _load_checkpoint(checkpoint)
    else:
        model = trained_base(
            "cifar10",
            build_model,
            splits["train"],
            RECIPE,
            structure={"normalize": (MEAN, STD)},
            cache_dir=cache_dir,
            seed=seed,
            notice=f"no checkpoint given: training the base for {RECIPE.epochs} epochs, a minute or so each",
        )
    return image_task(
        "cifar10",
        model,
        build_model,
        splits,
        labels=train.classes,
        preprocess={"colour": "RGB", "range": [0, 1], "size": [3, SIDE, SIDE]},
    )


def build_model() -> nn.Module:
    """The untrained network: normalisation, then ResNet-18 with torchvision's own stem."""
    network = load_torchvision().models.resnet18(num_classes=10)
    return nn.Sequential(OrderedDict(normalize=Normalize(MEAN, STD), model=network))


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


def _load_checkpoint(path: Path) -> nn.Module:
    model = build_model()
    try:
        model.get_submodule("model").load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DataError(
            f"checkpoint {path} is not a safetensors state_dict of resnet18(num_classes=10): "
            f"{one_line(error)}"
        ) from error
    return model.eval()
