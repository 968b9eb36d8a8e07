"""COCO's mean average precision, computed by faster-coco-eval."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np
import torch

from petra_optuna.errors import TaskError
from petra_optuna.models.yolo import SCORES
from petra_optuna.tasks.detection.boxes import Detections, detect
from petra_optuna.tasks.metrics import Metric


def map50_95(side: int) -> Metric:
    """The metric of detections in images of this width and height.

    Raises:
        TaskError: When faster-coco-eval is not installed.
    """
    _library()
    return Metric("map50_95", "maximize", functools.partial(mean_average_precision, side=side))


def mean_average_precision(outputs: np.ndarray, targets: np.ndarray, *, side: int) -> float:
    """Average precision, the mean over ten overlaps from 0.5 to 0.95 and over the classes of ``targets``.

    https://cocodataset.org/#detection-eval: 101 points of recall, at most 100 detections an image, objects of
    every size. Without any object it is NaN.

    Args:
        outputs: Raw predictions (N, positions, 5 + C).
        targets: Objects (N, M, 5): class, centre x, centre y, width, height in pixels; class -1 is padding.
        side: Width and height of the network's input.

    Raises:
        TaskError: When outputs or targets are of another shape, or faster-coco-eval is not installed.
    """
    if outputs.ndim != 3 or targets.ndim != 3 or targets.shape[2] != 5 or len(outputs) != len(targets):
        raise TaskError(
            "map50_95 reads predictions (N, positions, 5 + C) and objects (N, M, 5), got "
            f"{outputs.shape} and {targets.shape}"
        )
    found = detect(torch.from_numpy(np.ascontiguousarray(outputs, dtype=np.float32)), side)
    return average_precision(found, targets, outputs.shape[2] - SCORES)


def average_precision(detections: Detections, targets: np.ndarray, classes: int) -> float:
    """The metric of detections; see ``mean_average_precision``.

    Args:
        detections: Detections of N images.
        targets: Objects (N, M, 5).
        classes: Number of classes.
    """
    library = _library()
    rows, places = np.nonzero(targets[..., 0] >= 0)
    if len(rows) == 0:
        return float("nan")
    labels, x, y, width, height = targets[rows, places].T.astype(np.float64)
    boxes = np.stack([x - width / 2, y - height / 2, width, height], axis=1)
    truth = library.COCO(
        {
            "images": [{"id": image} for image in range(len(targets))],
            "categories": [{"id": index} for index in range(classes)],
            "annotations": [
                {"id": 1 + number, "image_id": int(row), "category_id": int(label), "bbox": box.tolist()}
                | {"area": float(box[2] * box[3]), "iscrowd": 0}
                for number, (row, label, box) in enumerate(zip(rows, labels, boxes, strict=True))
            ],
        }
    )
    if len(detections.images) == 0:
        return 0.0
    corner = detections.boxes[:, :2]
    extent = detections.boxes[:, 2:] - corner
    columns = (detections.images, corner, extent, detections.scores, detections.labels)
    table = torch.cat([column.double().reshape(len(corner), -1) for column in columns], dim=1).numpy()
    evaluation = library.COCOeval_faster(truth, truth.loadRes(table), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return float(precision[precision > -1].mean())


def _library() -> Any:
    """faster-coco-eval, an extra, loaded on first use."""
    try:
        return importlib.import_module("faster_coco_eval")
    except ModuleNotFoundError as error:
        raise TaskError(
            "map50_95 needs faster-coco-eval; install it with `pip install petra-optuna[detection]`"
        ) from error
