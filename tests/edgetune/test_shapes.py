"""What is tuned on random weights must answer for the trained file: both have one shape."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from petra_optuna.deploy import lower
from petra_optuna.measurement import shape_signature
from petra_optuna.models import M5, YOLO, ResidualNet, TextRNN
from petra_optuna.nn.initialization import as_if_trained
from petra_optuna.nn.randomness import seeded

NETWORKS = {
    "residual": (lambda: ResidualNet(1, 4, (8, 16), 1), lambda: torch.randn(8, 1, 8, 8)),
    "m5": (lambda: M5(1, 4, embedding=8), lambda: torch.randn(8, 1, 2000)),
    "yolo": (lambda: YOLO(2, width=4), lambda: torch.randn(8, 3, 32, 32)),
    "text": (lambda: TextRNN(50, 4, stride=2, hidden=8), lambda: torch.randint(1, 50, (8, 16))),
    "encoder": (
        lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True),
        lambda: torch.randn(8, 4, 16),
    ),
}


def signature(network, example, path):
    lower(network.eval(), (example,), path)
    return shape_signature(path)


QUICK = ("m5", "text")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_random_weights_have_the_shape_of_trained_ones(name, tmp_path):
    build, make_example = NETWORKS[name]
    with seeded(0):
        network, example = build(), make_example()
    before = signature(as_if_trained(network, seed=0), example, tmp_path / "before.onnx")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    network.train()
    for _ in range(2):
        optimizer.zero_grad()
        network(example).square().mean().backward()
        optimizer.step()
    assert signature(network, example, tmp_path / "after.onnx") == before


def test_the_weights_of_the_model_itself_stay():
    network = ResidualNet(1, 4, (8, 16), 1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    as_if_trained(network, seed=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
