from __future__ import annotations

import math

import pytest
import torch
from support.detections import random_objects, raw_of
from torch import Tensor

from petra_optuna.tasks.detection.boxes import cells
from petra_optuna.tasks.detection.distillation import detection_distillation
from petra_optuna.tasks.detection.loss import detection_loss, responsible

SIDE, CLASSES = 64, 3


def _raw(seed: int, images: int = 4) -> Tensor:
    shape = (images, len(cells(SIDE)), 5 + CLASSES)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _by_hand(targets: Tensor) -> dict[int, int]:
    """Position -> object, one object after the other, the largest first: later ones take cells over."""
    grid = cells(SIDE)
    owner = {}
    objects = [
        (w * h, index) for index, (c, _, _, w, h) in enumerate(targets.flatten(0, 1).tolist()) if c >= 0
    ]
    for _, index in sorted(objects, reverse=True):
        _, x, y, width, height = targets.flatten(0, 1)[index].tolist()
        stride = 8 if max(width, height) <= 48 else 16
        own = (math.floor(x / stride), math.floor(y / stride))
        beside = (own[0] + (-1 if x / stride % 1 < 0.5 else 1), own[1])
        above = (own[0], own[1] + (-1 if y / stride % 1 < 0.5 else 1))
        for column, row in (own, beside, above):
            wanted = torch.tensor([column * stride, row * stride, stride])
            (matching,) = (grid == wanted).all(1).nonzero(as_tuple=True)
            for position in matching.tolist():
                owner[index // targets.shape[1] * len(grid) + position] = index
    return dict(sorted(owner.items()))


def test_responsible_cells_are_those_found_one_by_one() -> None:
    targets = random_objects(30, 8, CLASSES, SIDE, seed=1)
    targets[0, 0] = torch.tensor([0.0, 30.0, 33.0, 60.0, 50.0])  # of the coarse scale
    positions, objects = responsible(targets, SIDE)
    assert dict(zip(positions.tolist(), objects.tolist(), strict=True)) == _by_hand(targets)


def test_neither_order_nor_padding_of_the_objects_counts() -> None:
    outputs, targets = _raw(0), random_objects(4, 6, CLASSES, SIDE, seed=2)
    expected = detection_loss(outputs, targets, side=SIDE)
    torch.testing.assert_close(detection_loss(outputs, targets.flip(1), side=SIDE), expected)
    padding = torch.tensor([-1.0, 0, 0, 0, 0]).expand(4, 3, 5)
    torch.testing.assert_close(detection_loss(outputs, torch.cat([padding, targets], 1), side=SIDE), expected)


def test_certain_right_predictions_cost_nothing_and_any_move_costs() -> None:
    targets = random_objects(4, 4, CLASSES, SIDE, seed=3)
    perfect = raw_of(targets, CLASSES, SIDE)
    assert detection_loss(perfect, targets, side=SIDE) < 0.01
    positions, _ = responsible(targets, SIDE)
    for value in range(5 + CLASSES):
        moved = perfect.flatten(0, 1).clone()
        moved[positions, value] -= (
            2 * moved[positions, value].sign() * moved[positions, value].abs().clamp(min=1)
        )
        assert detection_loss(moved.view_as(perfect), targets, side=SIDE) > 0.1


def test_images_without_objects_teach_that_there_are_none() -> None:
    outputs = _raw(1).requires_grad_()
    nothing = torch.tensor([-1.0, 0, 0, 0, 0]).expand(4, 2, 5)
    detection_loss(outputs, nothing, side=SIDE).backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert (outputs.grad[..., 4] > 0).all()
    assert not outputs.grad[..., :4].any()
    assert not outputs.grad[..., 5:].any()


@pytest.mark.parametrize(("scale", "shift"), [(0.01, 0.0), (1.0, 0.0), (30.0, 0.0), (1.0, -30.0)])
def test_gradients_are_finite_for_extreme_predictions(scale: float, shift: float) -> None:
    outputs = (scale * _raw(2) + shift).requires_grad_()
    detection_loss(outputs, random_objects(4, 6, CLASSES, SIDE, seed=4), side=SIDE).backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert torch.isfinite(outputs.grad).all()


def test_a_student_is_pulled_to_boxes_and_classes_only_where_the_teacher_sees_objects() -> None:
    teacher, student = _raw(5), _raw(6).requires_grad_()
    assert detection_distillation(teacher, teacher, 2.0) == pytest.approx(0.0, abs=1e-5)
    teacher[:, 0, 4], teacher[:, 1, 4] = 9.0, -30.0
    (pull,) = torch.autograd.grad(detection_distillation(student, teacher, 2.0), student)
    assert pull[:, 0].abs().min() > 0
    assert pull[:, 1, 4].abs().min() > 0
    assert pull[:, 1, [0, 1, 2, 3, 5, 6, 7]].abs().max() < 1e-9
