"""The training loss of ``models.YOLO``: boxes, objectness and classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from petra_optuna.models.yolo import OBJECTNESS, SCORES, STRIDES
from petra_optuna.tasks.detection.boxes import cells, decode
from petra_optuna.tasks.torchvision_shim import load_torchvision

BOX_WEIGHT = 5.0
LONGEST = 6.0
"""Longest side of an object, in cells, that a scale is responsible for; the last scale takes all others."""


def detection_loss(outputs: Tensor, targets: Tensor, *, side: int) -> Tensor:
    """``(5 L_box + L_objectness + L_class) / responsible positions``, sums over a batch.

    The sums, their weights and the division are those of YOLOX (arXiv 2107.08430, section 2.1). ``L_box`` is
    1 - CIoU of the responsible positions (arXiv 1911.08287, equation 10). The other two are binary
    cross-entropies: of the objectness at all positions, against the CIoU of the responsible ones as YOLOv5
    has it and 0 elsewhere, and of the classes at the responsible positions.

    Responsible for an object are, as in YOLOv5, the cell of its centre and the nearest cell beside and above
    or below it, in the first scale whose cells are at least a sixth of its longer side. Of objects that claim
    one cell the smallest has it.

    Args:
        outputs: Raw predictions (B, positions, 5 + C).
        targets: Objects (B, M, 5): class, centre x, centre y, width, height in pixels; class -1 is padding.
        side: Width and height of the network's input.
    """
    outputs = outputs.float()
    positions, objects = responsible(targets, side)
    chosen, truth = outputs.flatten(0, 1)[positions], targets.flatten(0, 1)[objects]
    centre, half = truth[:, 1:3], truth[:, 3:] / 2
    boxes = decode(outputs, side).flatten(0, 1)[positions]
    apart = load_torchvision().ops.complete_box_iou_loss(
        boxes, torch.cat([centre - half, centre + half], dim=1)
    )
    objectness = outputs[..., OBJECTNESS].flatten()
    present = torch.zeros_like(objectness)
    present[positions] = (1 - apart.detach()).clamp(min=0.0)
    labels = functional.one_hot(truth[:, 0].long(), outputs.shape[2] - SCORES).float()
    cross_entropy = functional.binary_cross_entropy_with_logits
    total: Tensor = (
        BOX_WEIGHT * apart.sum()
        + cross_entropy(objectness, present, reduction="sum")
        + cross_entropy(chosen[:, SCORES:], labels, reduction="sum")
    )
    return total / max(len(positions), 1)


def responsible(targets: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Positions that are responsible for an object, and their objects, as ``detection_loss`` describes them.

    Args:
        targets: Objects (B, M, 5).
        side: Width and height of the network's input.

    Returns:
        Indices (R,) into the positions of the flattened batch, ascending, and indices (R,) into its objects.
    """
    batch, most, _ = targets.shape
    flat = targets.flatten(0, 1)
    objects = (flat[:, 0] >= 0).nonzero().squeeze(1)
    objects = objects[(flat[objects, 3] * flat[objects, 4]).argsort(stable=True)]
    centre, longest = flat[objects, 1:3], flat[objects, 3:].amax(1)
    scale = torch.bucketize(longest, LONGEST * torch.tensor(STRIDES[:-1]))
    stride = torch.tensor(STRIDES)[scale]
    columns = side // stride
    cell = (centre / stride[:, None]).floor().clamp(min=0).minimum(columns[:, None] - 1)
    beside = torch.where(centre / stride[:, None] - cell < 0.5, -1.0, 1.0)
    still = torch.zeros_like(beside)
    moves = torch.stack([still, beside * torch.tensor([1, 0]), beside * torch.tensor([0, 1])])
    claimed = (cell + moves).long()
    inside = ((claimed >= 0) & (claimed < columns[:, None])).all(2)
    count = len(cells(side))
    first = torch.tensor([0, *((side // stride) ** 2 for stride in STRIDES[:-1])]).cumsum(0)[scale]
    position = objects // most * count + first + claimed[..., 1] * columns + claimed[..., 0]
    rank = torch.arange(len(objects)).expand(len(moves), -1)
    owner = torch.full((batch * count,), len(objects))
    owner.scatter_reduce_(0, position[inside], rank[inside], "amin")
    positions = (owner < len(objects)).nonzero().squeeze(1)
    return positions, objects[owner[positions]]
