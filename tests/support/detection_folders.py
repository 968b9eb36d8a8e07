"""Small data sets for detection: one content in COCO's and in YOLO's format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("circle", "square")
Content = Mapping[str, Sequence[tuple[tuple[int, int], list[tuple[int, tuple[int, int, int, int]]]]]]
"""Size and objects (class; left, top, width, height in pixels) of each image by part."""


def content(train: int = 12, val: int = 4) -> Content:
    """Images of three sizes with none to two objects."""
    parts = {}
    for part, count in (("train2017", train), ("val2017", val)):
        images = []
        for number in range(count):
            size = ((96, 64), (64, 96), (80, 80))[number % 3]
            boxes = [(0, (8, 12, 24, 20)), (1, (40 + number % 5, 30, 16, 24))]
            images.append((size, boxes[: number % 3] if number % 4 else boxes))
        parts[part] = images
    return parts


def _draw(path: Path, size: tuple[int, int], boxes: Sequence[tuple[int, tuple[int, int, int, int]]]) -> None:
    """Grey with a bright rectangle for each object, red or green by its class."""
    pixels = np.full((size[1], size[0], 3), 90, dtype=np.uint8)
    for label, (left, top, width, height) in boxes:
        pixels[top : top + height, left : left + width] = 0
        pixels[top : top + height, left : left + width, label] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_coco(root: Path, parts: Content) -> Path:
    """Write the content with category numbers 3 and 7, as files have gaps in theirs."""
    for part, images in parts.items():
        annotations = []
        for number, (size, boxes) in enumerate(images):
            _draw(root / part / f"{number:04d}.png", size, boxes)
            annotations += [
                {"id": len(annotations) + index, "image_id": 100 + number, "category_id": 3 + 4 * label}
                | {"bbox": list(box), "area": box[2] * box[3], "iscrowd": 0}
                for index, (label, box) in enumerate(boxes)
            ]
        stored = {
            "images": [
                {"id": 100 + number, "file_name": f"{number:04d}.png", "width": width, "height": height}
                for number, ((width, height), _) in reversed(list(enumerate(images)))
            ],
            "categories": [{"id": 7, "name": CLASSES[1]}, {"id": 3, "name": CLASSES[0]}],
            "annotations": annotations,
        }
        path = root / "annotations" / f"instances_{part}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(stored))
    return root


def write_yolo(root: Path, parts: Content) -> Path:
    """Write the content; an image without objects has no label file."""
    for part, images in parts.items():
        (root / "labels" / part).mkdir(parents=True, exist_ok=True)
        for number, (size, boxes) in enumerate(images):
            _draw(root / "images" / part / f"{number:04d}.png", size, boxes)
            lines = [
                f"{label} {(left + width / 2) / size[0]} {(top + height / 2) / size[1]} "
                f"{width / size[0]} {height / size[1]}"
                for label, (left, top, width, height) in boxes
            ]
            if lines:
                (root / "labels" / part / f"{number:04d}.txt").write_text("\n".join(lines))
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root
