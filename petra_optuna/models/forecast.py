"""A forecast of one channel of a window, as its recent mean plus what a network adds.

A mean over time, with which InceptionTime ends, knows no place in the window, and a forecast depends most on
what was last. So the network sees a window whose steps weigh less the older they are, and says by how much
the future differs from the recent mean: a network that says nothing is persistence. All channels but the
forecast one count by their difference from the window's own mean, because their level drifts with the season
(compare reversible instance normalisation, Kim et al., ICLR 2022).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from petra_optuna.nn.normalize import Denormalize, Normalize

OLDEST = 6.0
"""Negative logarithm of the weight of a window's first step."""


class Forecast(nn.Module):
    """Forecast of one channel from windows in the units of the data, in those units.

    Args:
        network: Maps windows (B, C, length) to one value each (B, 1).
        mean, std: Mean and standard deviation of each channel.
        scale: Mean and standard deviation of the target's difference from the recent mean.
        channel: Index of the channel to forecast.
        length: Steps of a window.
        recent: Last steps of the window over which the recent mean is taken.
    """

    weights: Tensor
    drifting: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        scale: tuple[float, float],
        channel: int,
        length: int,
        recent: int,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.model = network
        self.denormalize = Denormalize([scale[0]], [scale[1]])
        self.channel, self.recent = channel, recent
        self.register_buffer("weights", torch.linspace(-OLDEST, 0.0, length).exp())
        drifting = torch.ones(len(mean), 1)
        drifting[channel] = 0.0
        self.register_buffer("drifting", drifting)

    def forward(self, series: Tensor) -> Tensor:
        """Map windows (B, C, length) to forecasts (B, 1)."""
        standardised = self.normalize(series)
        level = standardised.mean(2, keepdim=True) * self.drifting
        difference = self.denormalize(self.model((standardised - level) * self.weights))
        recent = series[:, self.channel, -self.recent :].mean(1, keepdim=True)
        return recent + difference  # type: ignore[no-any-return]
