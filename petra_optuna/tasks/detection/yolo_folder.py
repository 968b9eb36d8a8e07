"""YOLO's format: ``images/<part>/NAME.jpg`` beside ``labels/<part>/NAME.txt``, one object a line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from petra_optuna.aliases import Array
from petra_optuna.errors import DataError, one_line
from petra_optuna.tasks.detection.annotations import (
    Annotated,
    DetectionData,
    check_annotated,
    images_in,
    only_part,
)

NAMES = "classes.txt"
_ROUNDING = 1e-3
"""By how much a share may be above 1: files round."""


def read_yolo(root: Path) -> DetectionData:
    """Read the part whose folder starts with ``train``, and that with ``val`` or ``test`` where there is one.

    A line of a label file is the class index, then centre x, centre y, width and height as shares of the
    image. An image without a label file is background. ``classes.txt`` names the classes, one a line; without
    it they are numbered up to the largest index in use.

    Raises:
        DataError: When folders are missing or a line does not parse; the text names file and line.
    """
    images, labels = root / "images", root / "labels"
    if not images.is_dir() or not labels.is_dir():
        raise DataError(f"{root} has no folders images and labels; expected images/train* and labels/train*")
    parts = [entry.name for entry in os.scandir(images) if entry.is_dir()]
    train, test = only_part(images, parts, ["train"]), only_part(images, parts, ["val", "test"])
    if train is None:
        raise DataError(f"{images} has no folder train*; it has {', '.join(sorted(parts)) or 'no folders'}")
    named = _names(root / NAMES)
    trained = _read_part(images / train, labels / train, len(named))
    held = () if test is None else _read_part(images / test, labels / test, len(named))
    largest = max(int(image.objects[:, 0].max(initial=-1)) for image in (*trained, *held))
    return DetectionData(trained, held, named or tuple(str(index) for index in range(largest + 1)))


def _names(path: Path) -> tuple[str, ...]:
    """Names of the classes; none where there is no such file."""
    if not path.exists():
        return ()
    names = tuple(line.strip() for line in _lines(path) if line.strip())
    if not names:
        raise DataError(f"{path} is empty; expected the name of a class in each line")
    return names


def _read_part(images: Path, labels: Path, classes: int) -> tuple[Annotated, ...]:
    part = tuple(
        Annotated(entry, _objects((labels / name).with_suffix(".txt"), classes))
        for name, entry in images_in(images).items()
    )
    check_annotated(part, labels)
    return part


def _objects(path: Path, classes: int) -> Array:
    lines = _lines(path) if path.exists() else []
    objects = [
        _object(f"{path}:{number}", line.split(), classes)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    return np.array(objects, dtype=np.float64).reshape(-1, 5)


def _object(where: str, parts: Sequence[str], classes: int) -> list[float]:
    try:
        index, *box = (float(part) for part in parts)
    except ValueError as error:
        raise DataError(f"{where} is not a line of numbers: {one_line(error)}") from error
    if len(box) != 4:
        raise DataError(f"{where} has {len(parts)} numbers; expected class, x, y, width, height")
    if not all(0 <= share <= 1 + _ROUNDING for share in box) or min(box[2:]) <= 0:
        raise DataError(
            f"{where} has the box {' '.join(parts[1:])}; expected shares from 0 to 1 with an area"
        )
    if index != int(index) or index < 0 or (classes and index >= classes):
        rule = f"from 0 to {classes - 1}, as {NAMES} names {classes}" if classes else "of 0 or more"
        raise DataError(f"{where} has class {parts[0]}; expected a number {rule}")
    return [index, *box]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable text file: {one_line(error)}") from error
