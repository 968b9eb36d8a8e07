from __future__ import annotations

import torch
from torch import nn

from petra_optuna.models.residual import ResidualBlock, ResidualNet


def test_every_stage_after_the_first_halves_the_resolution() -> None:
    net = ResidualNet(1, 10, widths=(8, 16, 32), blocks=2)
    features = net.stem(torch.randn(2, 1, 8, 8))
    assert features.shape == (2, 8, 8, 8)
    assert net.stages(features).shape == (2, 32, 2, 2)
    assert net(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_a_block_whose_branch_is_silent_passes_positive_features() -> None:
    block = ResidualBlock(4, 4).eval()
    nn.init.zeros_(block.bn2.weight)
    features = torch.rand(2, 4, 5, 5)
    assert torch.equal(block(features), features)


def test_the_digits_network_takes_one_to_two_megabytes() -> None:
    size = sum(parameter.numel() * 4 for parameter in ResidualNet(1, 10).parameters())
    assert 1e6 <= size <= 2e6
