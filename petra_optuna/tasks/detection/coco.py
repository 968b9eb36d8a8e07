"""COCO's format: one JSON file a part, which names images, categories and boxes.

https://cocodataset.org/#format-data
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from petra_optuna.errors import DataError, one_line
from petra_optuna.tasks.detection.annotations import (
    Annotated,
    DetectionData,
    check_annotated,
    images_in,
    only_part,
)

logger = logging.getLogger(__name__)

FOLDER, PREFIX = "annotations", "instances_"


def read_coco(root: Path) -> DetectionData:
    """Read ``annotations/instances_train*.json`` and, where it is there, ``annotations/instances_val*.json``.

    The images of ``instances_NAME.json`` are in the folder ``NAME``, ``images/NAME`` or ``images``. Images
    without boxes count as background. Boxes of crowds and boxes without an area are left out.

    Raises:
        DataError: When a file is missing or not of that format, or an image that one names is missing.
    """
    names = [path.name for path in (root / FOLDER).glob(f"{PREFIX}*.json")]
    train = only_part(root / FOLDER, names, [f"{PREFIX}train"])
    test = only_part(root / FOLDER, names, [f"{PREFIX}val"])
    if train is None:
        raise DataError(f"{root / FOLDER} has no {PREFIX}train*.json; expected the annotations to train on")
    images, categories = _read_part(root, root / FOLDER / train)
    held: tuple[Annotated, ...] = ()
    if test is not None:
        held, others = _read_part(root, root / FOLDER / test)
        if others != categories:
            raise DataError(f"{root / FOLDER / test} has other categories than {train}; give both the same")
    return DetectionData(images, held, tuple(categories.values()))


def _read_part(root: Path, path: Path) -> tuple[tuple[Annotated, ...], dict[int, str]]:
    """The images of a file in the order of their names, and its categories by number."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        categories = {int(one["id"]): str(one["name"]) for one in stored["categories"]}
        sizes = {int(one["id"]): (float(one["width"]), float(one["height"])) for one in stored["images"]}
        files = {int(one["id"]): str(one["file_name"]) for one in stored["images"]}
        categories = dict(sorted(categories.items()))
        objects = _objects(path, stored["annotations"], sizes, list(categories))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable JSON file: {one_line(error)}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not in COCO's format ({type(error).__name__}: {one_line(error)}); expected images, "
            "categories and annotations"
        ) from error
    present = images_in(_image_folder(root, path))
    images = [
        Annotated(_present(present, files[image], path), np.array(objects[image]).reshape(-1, 5))
        for image in sorted(files, key=lambda image: files[image])
    ]
    check_annotated(images, path)
    return tuple(images), categories


def _objects(
    path: Path, annotations: list[Any], sizes: Mapping[int, tuple[float, float]], categories: list[int]
) -> Mapping[int, list[tuple[float, ...]]]:
    """Objects by number of their image."""
    indices = {number: index for index, number in enumerate(categories)}
    objects: dict[int, list[tuple[float, ...]]] = defaultdict(list)
    empty = 0
    for one in annotations:
        left, top, width, height = (float(value) for value in one["bbox"])
        where = f"annotation {one.get('id')} of {path}"
        if one["category_id"] not in indices:
            raise DataError(f"{where} has category {one['category_id']!r}, which `categories` has not")
        if one["image_id"] not in sizes:
            raise DataError(f"{where} is of image {one['image_id']!r}, which `images` has not")
        if not all(math.isfinite(value) for value in (left, top, width, height)) or min(width, height) < 0:
            raise DataError(f"{where} has the box {one['bbox']}; expected left, top, width, height in pixels")
        empty += min(width, height) == 0
        if one.get("iscrowd") or min(width, height) == 0:
            continue
        across, down = sizes[one["image_id"]]
        box = ((left + width / 2) / across, (top + height / 2) / down, width / across, height / down)
        objects[one["image_id"]].append((indices[one["category_id"]], *box))
    if empty:
        logger.warning("%s: %d boxes without an area are left out", path, empty)
    return objects


def _image_folder(root: Path, path: Path) -> Path:
    name = path.stem.removeprefix(PREFIX)
    folders = (root / name, root / "images" / name, root / "images")
    for folder in folders:
        if folder.is_dir():
            return folder
    raise DataError(f"the images of {path} are missing: expected a folder {name} or images in {root}")


def _present(files: Mapping[str, os.DirEntry[str]], name: str, path: Path) -> os.DirEntry[str]:
    if name not in files:
        folder = Path(next(iter(files.values())).path).parent
        raise DataError(f"{path} names the image {name}, which {folder} has not")
    return files[name]
