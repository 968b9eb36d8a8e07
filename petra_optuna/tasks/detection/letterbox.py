"""Images of any size as squares of one size, and their objects in the squares' pixels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from petra_optuna.errors import DataError, one_line
from petra_optuna.tasks.decoded import decoded_once
from petra_optuna.tasks.detection.annotations import Annotated

FILL = 114
"""Grey value beside the image, that of the YOLO implementations."""
PADDING = -1.0
"""Class of the rows that fill up an image's objects."""


def letterboxed(images: Sequence[Annotated], side: int, most: int, cache_dir: Path) -> tuple[Tensor, Tensor]:
    """Images as squares and their objects in pixels of the squares.

    An image keeps its proportions: its longer side gets the side of the square, and grey fills what is left
    on both sides equally. The pixels are kept under ``cache_dir``, ``3 side^2`` bytes an image.

    Args:
        images: Images with their objects.
        side: Width and height of the squares.
        most: Rows for the objects of an image.
        cache_dir: Folder of the decoded pixels.

    Returns:
        Pixels uint8 (N, 3, side, side), and objects float32 (N, most, 5): class, centre x, centre y, width,
        height; class -1 is padding.

    Raises:
        DataError: When a file is not a readable image.
    """
    files = [image.file for image in images]
    pixels = decoded_once(
        files,
        functools.partial(_square, side=side),
        shape=(3, side, side),
        dtype=np.uint8,
        name="letterboxed",
        key=str(side),
        cache_dir=cache_dir,
    )
    sizes = decoded_once(files, _size, shape=(2,), dtype=np.int64, name="sizes", key="", cache_dir=cache_dir)
    objects = torch.zeros(len(images), most, 5)
    objects[..., 0] = PADDING
    for row, (image, size) in enumerate(zip(images, sizes, strict=True)):
        width, height = size.tolist()
        fitted = np.array(_fitted(width, height, side))
        own = image.objects.copy()
        own[:, 1:] *= np.tile(fitted, 2)
        own[:, 1:3] += (side - fitted) // 2
        objects[row, : len(own)] = torch.from_numpy(own)
    return torch.from_numpy(pixels), objects


def _fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height of an image whose longer side gets the side of the square."""
    longer = max(width, height)
    return max(1, round(width * side / longer)), max(1, round(height * side / longer))


def _square(file: str, side: int) -> np.ndarray:
    """Pixels (3, side, side)."""
    image = _opened(file)
    size = _fitted(image.width, image.height, side)
    image.draft("RGB", (2 * side, 2 * side))  # JPEG decodes smaller sizes much faster
    try:
        shown = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    except (OSError, SyntaxError) as error:  # Pillow reports broken PNGs by syntax
        raise DataError(f"{file} is not a readable image: {one_line(error)}") from error
    square = Image.new("RGB", (side, side), (FILL,) * 3)
    square.paste(shown, ((side - shown.width) // 2, (side - shown.height) // 2))
    return np.asarray(square).transpose(2, 0, 1)


def _size(file: str) -> np.ndarray:
    """Width and height of the image in its file."""
    return np.array(_opened(file).size)


def _opened(file: str) -> Image.Image:
    try:
        with open(file, "rb") as opened:
            return Image.open(BytesIO(opened.read()), formats=("JPEG", "PNG"))
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{file} is not a readable image: {one_line(error)}") from error
