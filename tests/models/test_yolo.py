from __future__ import annotations

import pytest
import torch

from petra_optuna.models import YOLO
from petra_optuna.models.yolo import OBJECTNESS, SCORES
from petra_optuna.tasks.detection.boxes import cells


@pytest.mark.parametrize("side", [32, 128])
def test_there_is_a_prediction_for_each_cell(side: int) -> None:
    outputs = YOLO(3, width=4).eval()(torch.rand(2, 3, side, side))
    assert outputs.shape == (2, len(cells(side)), SCORES + 3)


def test_a_prediction_comes_from_the_neighbourhood_of_its_cell() -> None:
    """The order of the output is that of ``cells``: what changes one corner of the image moves its cells."""
    torch.manual_seed(0)
    network, side = YOLO(1, width=4).eval(), 256
    image = torch.rand(1, 3, side, side)
    changed = image.clone()
    changed[..., :16, side - 16 :] = 0.0  # right above
    moved = (network(image) - network(changed))[0].abs().sum(1)
    for stride in (8, 16):
        rows = (cells(side)[:, 2] == stride).nonzero().squeeze(1)
        left, top, _ = cells(side)[rows[moved[rows].argmax()]].tolist()
        assert left >= side - 32
        assert top < 32


def test_it_starts_with_few_objects_and_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    network, images = YOLO(2, width=8, dropout=0.5), torch.rand(4, 3, 64, 64)
    outputs = network.eval()(images)
    assert outputs[..., OBJECTNESS].sigmoid().mean() < 0.05
    torch.testing.assert_close(network(images), outputs)
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    assert not torch.allclose(network(images), network(images))
