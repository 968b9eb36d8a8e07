from __future__ import annotations

import pytest
import torch
from torch import nn

from petra_optuna.models.inception_time import InceptionModule, InceptionTime


@pytest.mark.parametrize("channels", [1, 5])
def test_a_module_keeps_the_length_and_joins_four_branches(channels: int) -> None:
    module = InceptionModule(channels, 8, bottleneck=4)
    assert module(torch.randn(2, channels, 50)).shape == (2, 32, 50)
    assert isinstance(module.bottleneck, nn.Identity) == (channels == 1)


@pytest.mark.parametrize(("depth", "shortcuts"), [(1, 0), (3, 1), (5, 1), (6, 2), (7, 2)])
def test_a_shortcut_spans_every_three_modules(depth: int, shortcuts: int) -> None:
    net = InceptionTime(3, 4, filters=4, depth=depth, bottleneck=4)
    assert (len(net.blocks), len(net.shortcuts)) == (depth, shortcuts)
    assert net(torch.randn(2, 3, 20)).shape == net(torch.randn(2, 3, 61)).shape == (2, 4)


def test_a_silent_module_passes_what_its_shortcut_brings() -> None:
    net = InceptionTime(16, 2, filters=4, depth=3, bottleneck=4).eval()
    nn.init.zeros_(net.blocks[2].norm.weight)
    nn.init.dirac_(net.shortcuts[0].projection[0].weight)
    series = torch.rand(2, 16, 30)
    features = series / (1 + net.shortcuts[0].projection[1].eps) ** 0.5
    torch.testing.assert_close(net(series), net.head(features.mean(-1)))


def test_the_network_of_the_paper_has_its_number_of_weights() -> None:
    """Counted by hand from the paper's figure 1, series of one channel and ten classes."""
    width, long = 4 * 32, 39 + 19 + 9
    first = 32 * long + 32 + 2 * width
    other = 32 * width + 32 * 32 * long + 32 * width + 2 * width
    shortcuts = (width + 2 * width) + (width * width + 2 * width)
    expected = first + 5 * other + shortcuts + (width * 10 + 10)
    assert sum(parameter.numel() for parameter in InceptionTime(1, 10).parameters()) == expected
