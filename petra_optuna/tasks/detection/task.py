"""Objects in images, in COCO's or YOLO's format, and a small one-stage detector."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from petra_optuna.errors import DataError
from petra_optuna.models import YOLO
from petra_optuna.models.yolo import STRIDES
from petra_optuna.nn.inputs import Inputs
from petra_optuna.source import source_sha256
from petra_optuna.tasks.arrays import array_split, first_input
from petra_optuna.tasks.calibration import drawn
from petra_optuna.tasks.classification import BaseRecipe, LabeledSplits, load_checkpoint, trained_base
from petra_optuna.tasks.detection.annotations import Annotated, DetectionData
from petra_optuna.tasks.detection.boxes import BASE
from petra_optuna.tasks.detection.coco import FOLDER, read_coco
from petra_optuna.tasks.detection.distillation import detection_distillation
from petra_optuna.tasks.detection.letterbox import letterboxed
from petra_optuna.tasks.detection.loss import detection_loss
from petra_optuna.tasks.detection.metric import map50_95
from petra_optuna.tasks.detection.yolo_folder import read_yolo
from petra_optuna.tasks.task import Task

SIDE = 128
RECIPE = BaseRecipe(epochs=60, batch_size=16, peak_lr=3e-3, optimizer="adamw")
LIGHT = 0.3
"""Largest change of an image's brightness and contrast in training, as a share."""
PREPROCESS = {
    "layout": "NCHW",
    "colour": "RGB",
    "range": [0, 1],
    "size": [3, SIDE, SIDE],
    "fit": "letterbox, the rest grey",
    "predictions": {
        "cells": [{"stride": stride, "columns": SIDE // stride} for stride in STRIDES],
        "values": "x, y, width, height, objectness, classes",
        "box": f"with s = sigmoid: centre = corner + (2 s - 0.5) stride, size = 1 + {BASE:g} (2 s)^2 stride",
        "score": "sigmoid(objectness) sigmoid(class)",
    },
}


def build(
    *, data_root: Path | None = None, checkpoint: Path | None = None, cache_dir: Path, seed: int = 0
) -> Task:
    """Objects in images in COCO's or YOLO's format, a small YOLO at 128x128 pixels; needs ``detection``.

    Selection is every tenth training image in the order of their names, starting with the first; test is the
    part for validation, where there is one.

    Args:
        data_root: A folder with COCO's ``annotations/instances_train*.json`` or with the folders ``images``
            and ``labels`` of YOLO (see ``read_coco`` and ``read_yolo``), or with one such folder.
        checkpoint: safetensors with the state_dict of ``YOLO`` of as many classes. When None the base is
            trained, which takes long, and kept under ``cache_dir``.
        cache_dir: Folder of the decoded pixels and the base.
        seed: Seed of the base's training.

    Raises:
        DataError: When images, annotations or checkpoint are missing, damaged or of another layout.
        TaskError: When faster-coco-eval is not installed.
    """
    data = read_detection(data_root, cache_dir)
    make = functools.partial(build_model, len(data.labels))
    if checkpoint is not None:
        model = make()
        load_checkpoint(model, checkpoint, f"YOLO({len(data.labels)})")
    else:
        model = trained_base(
            data,
            make,
            RECIPE,
            structure={"loss": source_sha256(detection_loss), "side": SIDE},
            cache_dir=cache_dir,
            seed=seed,
            loss=functools.partial(detection_loss, side=SIDE),
            notice=f"no checkpoint given: training the base for {RECIPE.epochs} epochs, which takes long",
        )
    return detection_task(data, model.eval(), make)


def build_model(classes: int, dropout: float = 0.1) -> nn.Module:
    """The untrained network.

    Args:
        classes: Number of classes.
        dropout: Share of the channels that is zeroed before the heads in training.
    """
    return YOLO(classes, dropout=dropout)


def detection_task(
    data: LabeledSplits, model: nn.Module, build_model: Callable[[], nn.Module], *, trained: bool = True
) -> Task:
    """A task of detection by ``map50_95``.

    Args:
        data: Splits, names of the classes and what the input looks like.
        model: Base model.
        build_model: Makes the untrained network of the same structure.
        trained: Whether ``model`` is trained.

    Raises:
        TaskError: When faster-coco-eval is not installed.
    """
    return Task(
        name=data.name,
        model=model,
        initial=build_model,
        train=data.splits["train"],
        calibration=drawn(data.splits["train"]),
        selection=data.splits["selection"],
        test=data.splits.get("test"),
        metric=map50_95(SIDE),
        loss=functools.partial(detection_loss, side=SIDE),
        distillation=detection_distillation,
        labels=data.labels,
        preprocess={"dtype": "float32", **data.preprocess},
        trained=trained,
    )


def read_detection(data_root: Path | None, cache_dir: Path) -> LabeledSplits:
    """The splits that ``build`` describes: images (3, 128, 128) in [0, 1], objects (M, 5) in pixels.

    Args:
        data_root: Folder of the data set.
        cache_dir: Folder of the decoded pixels.

    Raises:
        DataError: When images or annotations are missing, damaged or of another layout.
    """
    data = _read(data_root)
    most = max(len(image.objects) for image in (*data.train, *data.test))
    parts: dict[str, Sequence[Annotated]] = {
        "train": [image for index, image in enumerate(data.train) if index % 10],
        "selection": data.train[::10],
        "test": data.test,
    }
    splits = {
        name: array_split(
            *letterboxed(images, SIDE, most, cache_dir), 255.0, _augment if name == "train" else None
        )
        for name, images in parts.items()
        if images
    }
    return LabeledSplits("detection", splits, data.classes, PREPROCESS)


def _read(data_root: Path | None) -> DetectionData:
    if data_root is None:
        raise DataError(
            "images with objects are not downloaded; give a `data_root` in COCO's or YOLO's format"
        )
    inner = sorted(path for path in data_root.glob("*") if path.is_dir())
    roots = [root for root in (data_root, *inner) if _is_coco(root) or _is_yolo(root)]
    if not roots:
        raise DataError(
            f"no images with objects in {data_root}: expected annotations/instances_train*.json, or the "
            "folders images/train* and labels/train*, there or in a folder of it"
        )
    if data_root not in roots and len(roots) > 1:
        names = ", ".join(root.name for root in roots)
        raise DataError(f"{data_root} has several data sets, {names}; give the folder of one as `data_root`")
    return read_coco(roots[0]) if _is_coco(roots[0]) else read_yolo(roots[0])


def _is_coco(root: Path) -> bool:
    return (root / FOLDER).is_dir()


def _is_yolo(root: Path) -> bool:
    return (root / "images").is_dir() and (root / "labels").is_dir()


def _augment(inputs: Inputs, generator: torch.Generator) -> Inputs:
    """Change brightness and contrast of each image; boxes stay where they are."""
    images = first_input(inputs)
    mean = images.mean((1, 2, 3), keepdim=True)
    contrast, brightness = 1 + LIGHT * (2 * torch.rand(2, len(images), 1, 1, 1, generator=generator) - 1)
    changed: Tensor = (mean + (images - mean) * contrast) * brightness
    return (changed.clamp(0.0, 1.0),)
