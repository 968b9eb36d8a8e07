"""Reading folders of small images, one folder a class, into memory."""

from __future__ import annotations

import dataclasses
import functools
import os
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from petra_optuna.errors import DataError
from petra_optuna.tasks.decoded import decoded_once

SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """Decoded images of a folder.

    Attributes:
        images: Pixels, uint8 (N, 3, side, side).
        targets: Class indices, int64 (N,).
        classes: Names of the classes in order of their index.
    """

    images: Tensor
    targets: Tensor
    classes: tuple[str, ...]


def read_image_folder(root: Path, side: int, *, expected_classes: int, cache_dir: Path) -> ImageFolder:
    """Decode ``<root>/<class>/*.jpg|png`` in the order of class and file names.

    The pixels are kept under ``cache_dir``: decoding 60,000 files takes five seconds (threads do not
    help: most of it is Python), reading them back half a second, and each worker does it.

    Args:
        root: Folder with one folder a class.
        side: Width and height that every image must have.
        expected_classes: Number of class folders that there must be.
        cache_dir: Folder of the decoded pixels, whose file is named by names, sizes and times of the images.

    Raises:
        DataError: When a class is missing or empty, or a file is no image of that size.
    """
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    if len(folders) != expected_classes:
        raise DataError(
            f"{root} has {len(folders)} class folders, expected {expected_classes}: {', '.join(folders)}"
        )
    files: list[os.DirEntry[str]] = []
    targets: list[int] = []
    for index, name in enumerate(folders):
        images = [entry for entry in os.scandir(root / name) if entry.name.lower().endswith(SUFFIXES)]
        if not images:
            raise DataError(f"class {name!r} is empty: {root / name} has no {', '.join(SUFFIXES)} file")
        files += sorted(images, key=lambda entry: entry.name)
        targets += [index] * len(images)
    pixels = decoded_once(
        files,
        functools.partial(_decode, side=side),
        shape=(side, side, 3),
        dtype=np.uint8,
        name="images",
        key=str(side),
        cache_dir=cache_dir,
    )
    return ImageFolder(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor(targets), tuple(folders)
    )


def _decode(file: str, side: int) -> np.ndarray:
    try:
        # Read whole and decode from memory: twice as fast as letting PIL seek in the file.
        with open(file, "rb") as opened:
            image = Image.open(BytesIO(opened.read()), formats=("JPEG", "PNG")).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{file} is not a readable image: {error}") from error
    if image.size != (side, side):
        raise DataError(f"{file} is {image.width}x{image.height} pixels, expected {side}x{side}")
    return np.asarray(image)
