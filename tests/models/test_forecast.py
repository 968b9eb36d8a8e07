from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from petra_optuna.deploy import OnnxRuntimeModel, export_onnx
from petra_optuna.models import Forecast

MEAN, STD, SCALE = (300.0, 20.0, 1e4), (70.0, 5.0, 2.0), (3.0, 40.0)


class Seen(nn.Module):
    """A network that keeps what it is given, and answers with a number of it."""

    def __init__(self, answer: float | None = None) -> None:
        super().__init__()
        self.answer, self.given = answer, torch.empty(0)

    def forward(self, windows: Tensor) -> Tensor:
        self.given = windows
        return windows[:, :1, -1] if self.answer is None else torch.full((len(windows), 1), self.answer)


def _forecast(network: nn.Module, channel: int = 0) -> Forecast:
    return Forecast(network, MEAN, STD, SCALE, channel, length=12, recent=4)


@pytest.fixture
def series() -> Tensor:
    noise = torch.randn(5, 3, 12, generator=torch.Generator().manual_seed(0))
    return noise * torch.tensor(STD)[:, None] + torch.tensor(MEAN)[:, None]


@pytest.mark.parametrize("channel", [0, 2])
def test_a_network_that_says_the_mean_change_is_persistence_and_that(series: Tensor, channel: int) -> None:
    silent = _forecast(Seen(0.0), channel)
    recent = series[:, channel, -4:].mean(1, keepdim=True)
    torch.testing.assert_close(silent(series), recent + SCALE[0])
    torch.testing.assert_close(_forecast(Seen(2.0), channel)(series), recent + SCALE[0] + 2 * SCALE[1])


def test_recent_steps_weigh_more_and_the_last_one_is_whole(series: Tensor) -> None:
    network = Seen()
    _forecast(network)(series)
    standardised = (series[:, 0] - MEAN[0]) / STD[0]
    torch.testing.assert_close(network.given[:, 0, -1], standardised[:, -1])
    torch.testing.assert_close(network.given[:, 0, 0], standardised[:, 0] * math.exp(-6))
    ratios = network.given[:, 0] / standardised
    torch.testing.assert_close(ratios[:, 1:] / ratios[:, :-1], torch.full((5, 11), math.exp(6 / 11)))


def test_the_level_of_other_channels_does_not_count_and_that_of_the_target_does(series: Tensor) -> None:
    network = Seen()
    forecast = _forecast(network)
    forecast(series)
    before = network.given
    forecast(series + torch.tensor([0.0, 7.0, -30.0])[:, None])
    torch.testing.assert_close(network.given, before, rtol=1e-3, atol=1e-3)
    forecast(series + torch.tensor([70.0, 0.0, 0.0])[:, None])
    torch.testing.assert_close(network.given[:, 0, -1], before[:, 0, -1] + 1)


def test_the_file_takes_raw_values_and_gives_raw_values(series: Tensor) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv1d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 1)
    )
    forecast = _forecast(network).eval()
    file = OnnxRuntimeModel(export_onnx(forecast, (series,)))
    weights = torch.exp(torch.linspace(-6, 0, 12, dtype=torch.float64))
    standardised = (series.double() - torch.tensor(MEAN)[:, None]) / torch.tensor(STD)[:, None]
    standardised[:, 1:] -= standardised[:, 1:].mean(2, keepdim=True)
    with torch.no_grad():
        change = network((standardised * weights).float()).double() * SCALE[1] + SCALE[0]
    expected = series[:, :1, -4:].double().mean(2) + change
    np.testing.assert_allclose(file.run({"input": series.numpy()}), expected, rtol=1e-5)
