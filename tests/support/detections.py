"""Raw predictions of known boxes, for tests of detection."""

from __future__ import annotations

import torch
from torch import Tensor

from petra_optuna.tasks.detection.boxes import BASE, cells
from petra_optuna.tasks.detection.loss import responsible

SURE = 12.0


def raw_of(targets: Tensor, classes: int, side: int) -> Tensor:
    """Raw predictions (B, positions, 5 + C) that decode to the objects (B, M, 5) with all certainty.

    All positions that are responsible for an object predict it.
    """
    grid = cells(side)
    outputs = torch.full((len(targets), len(grid), 5 + classes), -SURE)
    positions, objects = responsible(targets, side)
    truth, cell = targets.flatten(0, 1)[objects], grid[positions % len(grid)]
    corner, stride = cell[:, :2], cell[:, 2:]
    outputs = outputs.flatten(0, 1)
    outputs[positions, :2] = torch.logit(((truth[:, 1:3] - corner) / stride + 0.5) / 2)
    outputs[positions, 2:4] = torch.logit(((truth[:, 3:] - 1) / (BASE * stride)).sqrt() / 2)
    outputs[positions, 4] = SURE
    outputs[positions, 5 + truth[:, 0].long()] = SURE
    return outputs.unflatten(0, (len(targets), len(grid)))


def random_objects(images: int, most: int, classes: int, side: int, seed: int) -> Tensor:
    """Objects (images, most, 5) inside the image, between none and ``most`` of each; class -1 pads."""
    generator = torch.Generator().manual_seed(seed)
    size = 4 + (side / 2 - 4) * torch.rand(images, most, 2, generator=generator)
    centre = size / 2 + (side - size) * torch.rand(images, most, 2, generator=generator)
    labels = torch.randint(classes, (images, most, 1), generator=generator).float()
    targets = torch.cat([labels, centre, size], dim=2)
    absent = torch.arange(most) >= torch.randint(most + 1, (images, 1), generator=generator)
    targets[absent] = torch.tensor([-1.0, 0, 0, 0, 0])
    return targets
