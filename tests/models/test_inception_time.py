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


@pytest.fixture(scope="module")
def moved() -> InceptionTime:
    """A network whose norms move zeros, as those of a trained one do."""
    torch.manual_seed(0)
    net = InceptionTime(3, 2, filters=4, depth=6, bottleneck=4)
    for _ in range(3):
        net(3 + 2 * torch.randn(16, 3, 40))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.bias)
    return net.eval()


@pytest.mark.parametrize("padding", ["zeros", "noise", "large"])
@torch.no_grad()
def test_mixed_lengths_in_one_batch_give_each_series_what_it_gets_alone(
    moved: InceptionTime, padding: str
) -> None:
    series, lengths = torch.randn(4, 3, 45) - 1, torch.tensor([45, 20, 2, 1])
    beyond = torch.arange(45) >= lengths[:, None, None]
    fill = {"zeros": torch.zeros_like(series), "noise": series.flip(2), "large": 1e3 + series}[padding]
    outputs = moved(torch.where(beyond, fill, series), lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = series[row : row + 1, :, :length]
        torch.testing.assert_close(outputs[row : row + 1], moved(alone), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_without_lengths_padding_would_count(moved: InceptionTime) -> None:
    series = torch.randn(1, 3, 20)
    padded = nn.functional.pad(series, (0, 25))
    assert not torch.allclose(moved(padded), moved(series), rtol=1e-2)


def test_padding_gets_no_gradient() -> None:
    net = InceptionTime(2, 1, filters=4, depth=3, bottleneck=4).eval()
    series = torch.randn(2, 2, 30, requires_grad=True)
    net(series, torch.tensor([30, 11])).sum().backward()
    assert series.grad is not None
    assert series.grad[1, :, :11].any()
    assert not series.grad[1, :, 11:].any()
