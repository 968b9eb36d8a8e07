from __future__ import annotations

import numpy as np
import pytest
import torch
from support.detections import random_objects, raw_of
from torch import Tensor

from petra_optuna.tasks.detection.boxes import KEPT, cells, decode, detect, non_maximum_suppression
from petra_optuna.tasks.detection.loss import responsible
from petra_optuna.tasks.torchvision_shim import load_torchvision

SIDE = 64


def test_decoding_inverts_encoding() -> None:
    targets = random_objects(20, 6, 3, SIDE, seed=0)
    positions, objects = responsible(targets, SIDE)
    boxes = decode(raw_of(targets, 3, SIDE), SIDE).flatten(0, 1)[positions]
    truth = targets.flatten(0, 1)[objects, 1:]
    torch.testing.assert_close((boxes[:, :2] + boxes[:, 2:]) / 2, truth[:, :2], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(boxes[:, 2:] - boxes[:, :2], truth[:, 2:], atol=1e-3, rtol=1e-4)


def test_cells_tile_the_image_row_by_row_at_each_scale() -> None:
    grid = cells(SIDE)
    for stride in (8, 16):
        own = grid[grid[:, 2] == stride]
        assert len(own) * stride**2 == SIDE**2
        assert own[1].tolist() == [stride, 0, stride]
        assert len({tuple(cell) for cell in own.tolist()}) == len(own)


def _boxes(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = 30 * torch.rand(count, 2, generator=generator)
    return torch.cat([corner, corner + 1 + 20 * torch.rand(count, 2, generator=generator)], dim=1)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(shared / (sum(areas) - shared))


def _by_hand(boxes: np.ndarray, labels: list[int], threshold: float) -> list[int]:
    taken: list[int] = []
    for index in range(len(boxes)):
        rivals = [other for other in taken if labels[other] == labels[index]]
        if all(_overlap(boxes[index], boxes[other]) <= threshold for other in rivals):
            taken.append(index)
    return taken


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5])
def test_suppression_is_the_greedy_one_in_every_image_of_a_batch(threshold: float) -> None:
    boxes = torch.stack([_boxes(80, seed) for seed in range(5)])
    labels = torch.randint(3, (5, 80), generator=torch.Generator().manual_seed(9))
    stays = non_maximum_suppression(boxes, labels, threshold)
    for image in range(5):
        expected = _by_hand(boxes[image].double().numpy(), labels[image].tolist(), threshold)
        assert stays[image].nonzero().squeeze(1).tolist() == expected
        assert 3 < len(expected) < 80


def test_suppression_is_that_of_torchvision() -> None:
    operators = load_torchvision().ops
    scores = torch.arange(40, 0, -1).float()
    try:
        kept = operators.nms(_boxes(40, 0), scores, 0.3)
    except RuntimeError as error:
        pytest.skip(f"torchvision's compiled part is missing: {str(error)[:40]}")
    stays = non_maximum_suppression(_boxes(40, 0)[None], torch.zeros(1, 40, dtype=torch.int64), 0.3)
    assert stays[0].nonzero().squeeze(1).tolist() == sorted(kept.tolist())


def test_each_image_has_its_own_detections_best_first() -> None:
    """More images than are decoded at once."""
    targets = random_objects(150, 3, 4, SIDE, seed=5)
    found = detect(raw_of(targets, 4, SIDE), SIDE)
    assert torch.equal(found.images, found.images.sort().values)
    assert torch.bincount(found.images).max() <= KEPT
    for image, own in enumerate(targets):
        mine = found.images == image
        assert (found.scores[mine].diff() <= 0).all()
        sure = found.labels[mine & (found.scores > 0.9)].tolist()
        assert set(sure) <= {int(label) for label in own[:, 0] if label >= 0}
