from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.detection_folders import CLASSES, content, write_coco, write_yolo
from torch import Tensor

from petra_optuna.errors import DataError
from petra_optuna.tasks.detection import read_detection
from petra_optuna.tasks.detection.coco import read_coco
from petra_optuna.tasks.detection.task import SIDE
from petra_optuna.tasks.detection.yolo_folder import read_yolo


def _all(root: Path, part: str) -> tuple[Tensor, Tensor]:
    split = read_detection(root, root.parent / "cache").splits[part]
    inputs, targets = next(split.batches(100))
    assert isinstance(inputs, tuple)
    return inputs[0], targets


def test_both_formats_of_one_content_are_one_data_set(tmp_path: Path) -> None:
    coco, yolo = write_coco(tmp_path / "coco", content()), write_yolo(tmp_path / "yolo", content())
    for part in ("train", "selection", "test"):
        for one, other in zip(_all(coco, part), _all(yolo, part), strict=True):
            torch.testing.assert_close(one, other, atol=1e-3, rtol=0)
    assert read_coco(coco).classes == read_yolo(yolo).classes == CLASSES


@pytest.mark.parametrize("write", [write_coco, write_yolo])
def test_boxes_lie_on_what_they_name(tmp_path: Path, write: Callable[[Path, Any], Path]) -> None:
    """Letterboxing moves pixels and boxes alike: only inside of a box is the colour of its class."""
    images, targets = _all(write(tmp_path / "data", content()), "train")
    checked = 0
    for image, objects in zip(images, targets, strict=True):
        for label, x, y, width, height in objects[objects[:, 0] >= 0].tolist():
            inside = image[
                :,
                round(y - height / 2) + 2 : round(y + height / 2) - 2,
                round(x - width / 2) + 2 : round(x + width / 2) - 2,
            ]
            assert inside[int(label)].min() > 0.9
            left = image[int(label), round(y), round(x - width / 2) - 3]
            right = image[int(label), round(y), round(x + width / 2) + 2]
            assert max(left, right) < 0.5
            checked += 1
    assert checked > 10
    assert images.shape[1:] == (3, SIDE, SIDE)


def test_every_tenth_image_is_selection_and_val_is_test(tmp_path: Path) -> None:
    data = read_detection(write_yolo(tmp_path / "yolo", content(22, 3)), tmp_path / "cache")
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 19,
        "selection": 3,
        "test": 3,
    }
    train, _ = next(data.splits["train"].batches(100))
    selection, _ = next(data.splits["selection"].batches(100))
    whole = torch.cat([train[0], selection[0]])  # type: ignore[index]
    assert len(whole) == 22
    assert data.splits["train"].augment is not None
    assert data.splits["selection"].augment is None


def test_a_set_without_a_part_for_validation_has_no_test(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data" / "coco128", {"train2017": content()["train2017"]})
    (root / "classes.txt").unlink()
    data = read_detection(root.parent, tmp_path / "cache")
    assert set(data.splits) == {"train", "selection"}
    assert data.labels == ("0", "1")


def test_light_changes_and_boxes_stay(tmp_path: Path) -> None:
    split = read_detection(write_yolo(tmp_path / "data", content()), tmp_path / "cache").splits["train"]
    (plain, targets), (changed, same) = (
        next(split.batches(8, shuffle_seed=1, augment=augment)) for augment in (False, True)
    )
    assert torch.equal(targets, same)
    assert not torch.equal(plain[0], changed[0])  # type: ignore[index]
    assert 0 <= changed[0].min() <= changed[0].max() <= 1  # type: ignore[index]


def _in_json(part: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = root / "annotations" / f"instances_{part}.json"
        stored = json.loads(path.read_text())
        change(stored)
        path.write_text(json.dumps(stored))

    return spoil


COCO = {
    r"names the image 0003.png, which .*train2017 has not": lambda root: (
        root / "train2017/0003.png"
    ).unlink(),
    r"instances_train2017.json is not a readable JSON": lambda root: (
        root / "annotations/instances_train2017.json"
    ).write_text("{"),
    r"annotations has no instances_train\*.json": lambda root: (
        root / "annotations/instances_train2017.json"
    ).unlink(),
    r"not in COCO's format \(KeyError: 'categories'\)": _in_json("train2017", lambda s: s.pop("categories")),
    r"not in COCO's format \(TypeError": _in_json("train2017", lambda s: s.update(annotations=[3])),
    r"instances_val2017.json has other categories": _in_json(
        "val2017", lambda s: s["categories"][0].update(name="ring")
    ),
    r"annotation 0 of .* has category 5": _in_json(
        "train2017", lambda s: s["annotations"][0].update(category_id=5)
    ),
    r"annotation 0 of .* is of image 7": _in_json(
        "train2017", lambda s: s["annotations"][0].update(image_id=7)
    ),
    r"annotation 0 of .* has the box \[1, 2, -3, 4\]": _in_json(
        "train2017", lambda s: s["annotations"][0].update(bbox=[1, 2, -3, 4])
    ),
    r"instances_val2017.json has no annotation of any image": _in_json(
        "val2017", lambda s: s.update(annotations=[])
    ),
    r"0003.png is not a readable image": lambda root: (root / "train2017/0003.png").write_bytes(b"<html>"),
    r"the images of .*instances_val2017.json are missing": lambda root: (root / "val2017").rename(root / "v"),
}


@pytest.mark.parametrize("message", COCO)
def test_a_spoiled_coco_folder_is_one_line(tmp_path: Path, message: str) -> None:
    root = write_coco(tmp_path / "data", content())
    COCO[message](root)
    with pytest.raises(DataError, match=message) as caught:
        read_detection(root, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def _line(text: str) -> Callable[[Path], object]:
    return lambda root: (root / "labels/train2017/0002.txt").write_text(f"0 .5 .5 .2 .2\n{text}\n")


YOLO = {
    r"0002.txt:2 is not a line of numbers": _line("cat 0.5 0.5 0.1 0.1"),
    r"0002.txt:2 has 3 numbers": _line("0 0.5 0.5"),
    r"0002.txt:2 has the box 0.5 0.5 1.5 0.1": _line("0 0.5 0.5 1.5 0.1"),
    r"0002.txt:2 has the box 0.5 0.5 0 0.1": _line("0 0.5 0.5 0 0.1"),
    r"0002.txt:2 has the box nan": _line("0 nan 0.5 0.1 0.1"),
    r"0002.txt:2 has class 2; expected a number from 0 to 1": _line("2 0.5 0.5 0.1 0.1"),
    r"0002.txt:2 has class -1": _line("-1 0.5 0.5 0.1 0.1"),
    r"0002.txt:2 has class 0.5": _line("0.5 0.5 0.5 0.1 0.1"),
    r"labels.val2017 has no annotation": lambda root: [
        file.unlink() for file in (root / "labels/val2017").iterdir()
    ],
    r"images has no folder train\*; it has t, val2017": lambda root: (root / "images/train2017").rename(
        root / "images/t"
    ),
    r"images.train2017 has no .jpg": lambda root: [
        file.unlink() for file in (root / "images/train2017").iterdir()
    ],
    r"classes.txt is empty": lambda root: (root / "classes.txt").write_text("\n"),
    r"has train2014, train2017; give a `data_root` that has one": lambda root: (
        root / "images/train2014"
    ).mkdir(),
    r"no images with objects in": lambda root: (root / "labels").rename(root / "notes"),
}


@pytest.mark.parametrize("message", YOLO)
def test_a_spoiled_yolo_folder_is_one_line(tmp_path: Path, message: str) -> None:
    root = write_yolo(tmp_path / "data", content())
    YOLO[message](root)
    with pytest.raises(DataError, match=message) as caught:
        read_detection(root, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_crowds_and_boxes_without_area_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_coco(tmp_path / "data", content())
    before = sum(len(image.objects) for image in read_coco(root).train)
    _in_json("train2017", lambda s: s["annotations"][0].update(iscrowd=1))(root)
    _in_json("train2017", lambda s: s["annotations"][1].update(bbox=[3, 3, 0, 5]))(root)
    assert sum(len(image.objects) for image in read_coco(root).train) == before - 2
    assert "1 boxes without an area are left out" in caplog.text


def test_folders_that_do_not_exist_or_hold_several_sets_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images with objects in"):
        read_detection(tmp_path / "nowhere", tmp_path)
    for name in ("one", "two"):
        write_yolo(tmp_path / "data" / name, content(2, 1))
    with pytest.raises(DataError, match="several data sets, one, two"):
        read_detection(tmp_path / "data", tmp_path)
    with pytest.raises(DataError, match="give a `data_root`"):
        read_detection(None, tmp_path)


def test_objects_are_shares_of_the_image(tmp_path: Path) -> None:
    first = read_coco(write_coco(tmp_path / "data", content())).train[0]
    expected = [[0, 20 / 96, 22 / 64, 24 / 96, 20 / 64], [1, 48 / 96, 42 / 64, 16 / 96, 24 / 64]]
    np.testing.assert_allclose(first.objects, expected)
