"""Images and their objects as COCO and YOLO store them on disk."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from petra_optuna.aliases import Array
from petra_optuna.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclasses.dataclass(frozen=True)
class Annotated:
    """One image of a data set.

    Attributes:
        file: The image.
        objects: Its objects (n, 5): class index, and centre x, centre y, width and height as shares of the
            image's width and height.
    """

    file: os.DirEntry[str]
    objects: Array


@dataclasses.dataclass(frozen=True)
class DetectionData:
    """Images of both parts of a data set in the order of their names.

    Attributes:
        train: Images to train on.
        test: Images of the part for validation; none where the data set has no such part.
        classes: Names of the classes in order of their index.
    """

    train: tuple[Annotated, ...]
    test: tuple[Annotated, ...]
    classes: tuple[str, ...]


def images_in(folder: Path) -> dict[str, os.DirEntry[str]]:
    """The images of a folder by file name, in the order of their names.

    Raises:
        DataError: When the folder cannot be read or has no image.
    """
    try:
        entries = [entry for entry in os.scandir(folder) if entry.name.lower().endswith(SUFFIXES)]
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}); expected a folder of images") from error
    if not entries:
        raise DataError(f"{folder} has no {', '.join(SUFFIXES)} file")
    return {entry.name: entry for entry in sorted(entries, key=lambda entry: entry.name)}


def only_part(root: Path, names: Iterable[str], prefixes: Iterable[str]) -> str | None:
    """The one name that starts with the first prefix that any of them has; None where none has one.

    Args:
        root: Folder of the names, for the error.
        names: Names of folders or files.
        prefixes: Beginnings in order of preference.

    Raises:
        DataError: When several names start so.
    """
    given = sorted(names)
    for prefix in prefixes:
        parts = [name for name in given if name.startswith(prefix)]
        if len(parts) > 1:
            raise DataError(f"{root} has {', '.join(parts)}; give a `data_root` that has one {prefix} part")
        if parts:
            return parts[0]
    return None


def check_annotated(images: Iterable[Annotated], place: Path) -> None:
    """Check that there is an object at all.

    Args:
        images: Images of a part.
        place: File or folder of its annotations, for the error.

    Raises:
        DataError: When no image has an object.
    """
    if not any(len(image.objects) for image in images):
        raise DataError(f"{place} has no annotation of any image; expected boxes with a class")
