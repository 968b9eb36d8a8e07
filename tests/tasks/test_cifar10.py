from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.image_files import CLASSES, colour, write_images

from petra_optuna.errors import DataError
from petra_optuna.tasks import Task, build_task, image_folder
from petra_optuna.tasks.arrays import SampleArray
from petra_optuna.tasks.cifar10 import build_model
from petra_optuna.tasks.guard import contents


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    save_file(build_model().get_submodule("model").state_dict(), path)
    return path


def _build(root: Path, checkpoint: Path, cache: Path) -> Task:
    return build_task("cifar10", data_root=root, checkpoint=checkpoint, cache_dir=cache)


def _colours(task: Task, part: str) -> list[tuple[int, ...]]:
    dataset = contents(getattr(task, part)).dataset
    assert isinstance(dataset, SampleArray)
    assert (dataset.samples == dataset.samples[:, :, :1, :1]).all()
    return [tuple(pixel) for pixel in dataset.samples[:, :, 0, 0].tolist()]


@pytest.mark.parametrize("nested", ["", "cifar10"])
def test_every_tenth_file_of_a_class_is_selection(tmp_path: Path, checkpoint: Path, nested: str) -> None:
    write_images(tmp_path / "data" / nested)
    task = _build(tmp_path / "data", checkpoint, tmp_path / "cache")
    assert task.labels == CLASSES
    assert _colours(task, "selection") == [colour("train", c, n) for c in CLASSES for n in (0, 10)]
    kept = [n for n in range(12) if n not in (0, 10)]
    assert _colours(task, "train") == [colour("train", c, n) for c in CLASSES for n in kept]
    assert _colours(task, "test") == [colour("test", c, n) for c in CLASSES for n in range(3)]
    assert task.selection.dataset.targets.tolist() == [i for i in range(10) for _ in range(2)]  # type: ignore[attr-defined]


def test_pixels_reach_the_model_as_rgb_between_0_and_1(tmp_path: Path, checkpoint: Path) -> None:
    task = _build(write_images(tmp_path / "data"), checkpoint, tmp_path / "cache")
    inputs, targets = next(task.selection.batches(4))
    assert isinstance(inputs, tuple)
    expected = torch.tensor(colour("train", "b", 10)) / 255
    torch.testing.assert_close(inputs[0][3, :, 5, 7], expected)
    assert targets.tolist() == [0, 0, 1, 1]
    assert task.model(inputs[0]).shape == (4, 10)


def test_decoded_pixels_are_kept_and_a_changed_file_is_seen(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache = write_images(tmp_path / "data"), tmp_path / "cache"
    decoded = []
    original = image_folder._decode
    monkeypatch.setattr(
        image_folder, "_decode", lambda file, side: decoded.append(file) or original(file, side)
    )
    first = _build(root, checkpoint, cache)
    assert len(decoded) == 150
    second = _build(root, checkpoint, cache)
    assert len(decoded) == 150
    assert first.fingerprint == second.fingerprint
    Image.new("RGB", (32, 32), (1, 2, 3)).save(root / "train" / "c" / "00005.png", compress_level=0)
    assert _build(root, checkpoint, cache).fingerprint != first.fingerprint
    assert len(decoded) == 150 + 120


def test_a_damaged_pixel_file_is_decoded_again(tmp_path: Path, checkpoint: Path) -> None:
    root, cache = write_images(tmp_path / "data"), tmp_path / "cache"
    first = _build(root, checkpoint, cache)
    for file in cache.glob("images-*.npy"):
        file.write_bytes(file.read_bytes()[:1000])
    assert _build(root, checkpoint, cache).fingerprint == first.fingerprint


def _missing(root: Path) -> str:
    (root / "train").rename(root / "training")
    return "no CIFAR-10 in .*expected train/<class>"


def _empty(root: Path) -> str:
    for file in (root / "train" / "d").iterdir():
        file.rename(file.with_suffix(".txt"))
    return "class 'd' is empty"


def _class_gone(root: Path) -> str:
    (root / "test" / "j").rename(root / "j")
    return "9 class folders, expected 10"


def _other_classes(root: Path) -> str:
    (root / "test" / "j").rename(root / "test" / "k")
    return "different class folders"


def _no_image(root: Path) -> str:
    (root / "train" / "a" / "00003.png").write_bytes(b"<html>")
    return "00003.png is not a readable image"


def _large(root: Path) -> str:
    Image.fromarray(np.zeros((64, 48, 3), np.uint8)).save(root / "test" / "a" / "00001.png")
    return "00001.png is 48x64 pixels, expected 32x32"


@pytest.mark.parametrize("spoil", [_missing, _empty, _class_gone, _other_classes, _no_image, _large])
def test_a_spoiled_folder_is_one_line(tmp_path: Path, checkpoint: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    root = write_images(tmp_path / "data")
    message = spoil(root)
    with pytest.raises(DataError, match=message) as caught:
        _build(root, checkpoint, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_a_folder_that_does_not_exist_is_one_line(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(DataError, match="no CIFAR-10 in"):
        _build(tmp_path / "nowhere", checkpoint, tmp_path)


def test_a_checkpoint_of_something_else_is_one_line(tmp_path: Path) -> None:
    root = write_images(tmp_path / "data")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    for name in ("other", "text", "missing"):
        with pytest.raises(DataError, match=rf"{name}.safetensors is not a safetensors state_dict") as caught:
            _build(root, tmp_path / f"{name}.safetensors", tmp_path / "cache")
        assert "\n" not in str(caught.value)
