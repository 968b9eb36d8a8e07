"""Raw predictions of ``models.YOLO`` as boxes, and the suppression of boxes that show one object twice.

Boxes are (left, top, right, bottom) in pixels of the network's input.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from petra_optuna.models.yolo import OBJECTNESS, SCORES, STRIDES
from petra_optuna.tasks.torchvision_shim import load_torchvision

BASE = 4.0
"""Side of the box of a raw size of 0, in cells; the largest side is four times as long."""
CANDIDATES, KEPT = 300, 100
"""Predictions of an image before and after suppression. COCO's metric counts 100."""
OVERLAP = 0.6
"""Intersection over union above which two boxes of a class count as one object."""
_IMAGES_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Detections:
    """What was detected in some images.

    Attributes:
        images: Index of the image of each detection, int64 (D,), ascending.
        boxes: Boxes (D, 4).
        scores: Scores (D,), falling within an image.
        labels: Class indices, int64 (D,).
    """

    images: Tensor
    boxes: Tensor
    scores: Tensor
    labels: Tensor


def cells(side: int) -> Tensor:
    """Left, top and stride of each cell in pixels, (positions, 3), in the order of the network's output.

    Args:
        side: Width and height of the network's input, a multiple of the largest stride.
    """
    scales = []
    for stride in STRIDES:
        corners = torch.arange(0, side, stride, dtype=torch.float32)
        top, left = torch.meshgrid(corners, corners, indexing="ij")
        scales.append(torch.stack([left, top, torch.full_like(left, stride)], dim=2).reshape(-1, 3))
    return torch.cat(scales)


def decode(outputs: Tensor, side: int) -> Tensor:
    """Boxes of raw predictions, with s the sigmoid of a raw value.

    The centre is ``corner + (2 s - 0.5) stride``, so that it may lie half a cell outside, and the size is
    ``1 + (2 s)^2 BASE stride``: the bounded forms of YOLOv5 (doi 10.5281/zenodo.7347926), without its anchors
    and with one pixel more, which keeps the gradient of a box's form finite.

    Args:
        outputs: Raw predictions (..., positions, 5 + C).
        side: Width and height of the network's input.

    Returns:
        Boxes (..., positions, 4).
    """
    grid = cells(side)
    corner, stride = grid[:, :2], grid[:, 2:]
    share = outputs[..., :OBJECTNESS].sigmoid()
    centre = corner + (2 * share[..., :2] - 0.5) * stride
    half = (1 + (2 * share[..., 2:]).square() * BASE * stride) / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def non_maximum_suppression(boxes: Tensor, labels: Tensor, threshold: float = OVERLAP) -> Tensor:
    """Which boxes stay when the best is taken again and again and what overlaps it is dropped.

    It needs no compiled operator, which torchvision lacks beside a CPU-only torch, and takes many images at
    once: one step of a loop serves the boxes of one rank in all of them.

    Args:
        boxes: Boxes (B, K, 4), the best of each image first.
        labels: Class indices (B, K); boxes of different classes do not suppress each other.
        threshold: Intersection over union above which the worse of two boxes is dropped.

    Returns:
        Whether each box stays, bool (B, K).
    """
    rivals = load_torchvision().ops.box_iou(boxes, boxes) > threshold
    rivals &= labels.unsqueeze(1) == labels.unsqueeze(2)
    rivals = rivals.triu(diagonal=1)
    stays = torch.ones(labels.shape, dtype=torch.bool)
    for rank in range(labels.shape[1]):
        stays &= ~(rivals[:, rank] & stays[:, rank, None])
    return stays


def detect(outputs: Tensor, side: int) -> Detections:
    """The 100 best detections of each image, of overlapping ones of a class the best.

    A detection is a position and a class. Its score is the product of the sigmoids of objectness and class.

    Args:
        outputs: Raw predictions (N, positions, 5 + C).
        side: Width and height of the network's input.
    """
    parts = [_detect(part, side) for part in torch.split(outputs, _IMAGES_AT_ONCE)]
    images = [part.images + index * _IMAGES_AT_ONCE for index, part in enumerate(parts)]
    others = zip(*((part.boxes, part.scores, part.labels) for part in parts), strict=True)
    return Detections(torch.cat(images), *(torch.cat(values) for values in others))


def _detect(outputs: Tensor, side: int) -> Detections:
    shares = outputs[..., OBJECTNESS:].sigmoid()
    scores = (shares[..., :1] * shares[..., 1:]).flatten(1)
    classes = outputs.shape[2] - SCORES
    best, chosen = scores.topk(min(CANDIDATES, scores.shape[1]), dim=1)
    labels, rows = chosen % classes, torch.arange(len(outputs))[:, None]
    boxes = decode(outputs, side)[rows, chosen // classes]
    stays = non_maximum_suppression(boxes, labels)
    stays &= stays.cumsum(1) <= KEPT
    return Detections(rows.expand_as(labels)[stays], boxes[stays], best[stays], labels[stays])
