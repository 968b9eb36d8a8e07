"""InceptionTime for time series of fixed or varying length (Ismail Fawaz et al., arXiv 1909.04939)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

KERNEL_SIZES = (39, 19, 9)
"""Kernel sizes of the paper, 40, 20 and 10, less one: odd kernels keep the length with equal padding."""

RESIDUAL_EVERY = 3
"""Number of modules that a shortcut spans."""


class InceptionModule(nn.Module):
    """Three long convolutions of a bottleneck beside one of the pooled input, joined by channels.

    Args:
        channels: Number of input channels.
        filters: Number of output channels of each of the four branches.
        bottleneck: Number of channels that the long convolutions read; a single input channel has no
            bottleneck.
    """

    def __init__(self, channels: int, filters: int, bottleneck: int) -> None:
        super().__init__()
        reduced = bottleneck if channels > 1 else channels
        self.bottleneck = nn.Conv1d(channels, reduced, 1, bias=False) if channels > 1 else nn.Identity()
        self.branches = nn.ModuleList(
            nn.Conv1d(reduced, filters, size, padding=size // 2, bias=False) for size in KERNEL_SIZES
        )
        self.pooled = nn.Sequential(
            nn.MaxPool1d(3, stride=1, padding=1), nn.Conv1d(channels, filters, 1, bias=False)
        )
        self.norm = nn.BatchNorm1d((len(KERNEL_SIZES) + 1) * filters)
        self.activation = nn.ReLU()

    def forward(self, series: Tensor, repeated: Tensor | None = None) -> Tensor:
        """Map series (B, channels, T) to features (B, 4 filters, T).

        Args:
            series: Series; beyond the end of a shorter one stand zeros, which is what convolutions pad with.
            repeated: The same series with the last step repeated beyond the end, which no maximum sees;
                ``series`` itself when None, which is right where no value is negative.
        """
        reduced = self.bottleneck(series)
        branches = [branch(reduced) for branch in self.branches]
        joined = torch.cat([*branches, self.pooled(series if repeated is None else repeated)], dim=1)
        return self.activation(self.norm(joined))  # type: ignore[no-any-return]


class Shortcut(nn.Module):
    """Residual connection that adds a projection of earlier features to later ones.

    Args:
        channels: Number of channels of the earlier features.
        width: Number of channels of the later features.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(nn.Conv1d(channels, width, 1, bias=False), nn.BatchNorm1d(width))
        self.activation = nn.ReLU()

    def forward(self, earlier: Tensor, later: Tensor) -> Tensor:
        """Map (B, channels, T) and (B, width, T) to (B, width, T)."""
        return self.activation(self.projection(earlier) + later)  # type: ignore[no-any-return]


class InceptionTime(nn.Module):
    """Classifier or regressor of series: inception modules, mean over time, linear head.

    A shortcut spans every three modules. With ``lengths`` a batch may hold series of several lengths, padded
    at their end with anything: each gets the outputs that it gets alone. Batch norm counts the padding while
    it trains.

    Args:
        in_channels: Number of channels of the series.
        outputs: Number of logits, or of values to predict.
        filters: Number of channels of each branch of a module; features have four times as many.
        depth: Number of modules.
        bottleneck: Number of channels that the long convolutions of a module read.
    """

    def __init__(
        self, in_channels: int, outputs: int, filters: int = 32, depth: int = 6, bottleneck: int = 32
    ) -> None:
        super().__init__()
        width = (len(KERNEL_SIZES) + 1) * filters
        widths = [in_channels] + [width] * depth
        self.blocks = nn.ModuleList(
            InceptionModule(channels, filters, bottleneck) for channels in widths[:depth]
        )
        starts = range(0, depth - RESIDUAL_EVERY + 1, RESIDUAL_EVERY)
        self.shortcuts = nn.ModuleList(Shortcut(widths[start], width) for start in starts)
        self.head = nn.Linear(width, outputs)

    def forward(self, series: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map series (B, in_channels, T) to outputs (B, outputs).

        Args:
            series: Series, padded at their end.
            lengths: Number of steps of each series, int64 (B,), from 1 to T; T for all when None.
        """
        if lengths is None:
            return self.head(self._features(series).mean(-1))  # type: ignore[no-any-return]
        inside = steps_inside(lengths, series)
        pooled = self._features(series, inside, lengths).sum(-1) / lengths.unsqueeze(1)
        return self.head(pooled)  # type: ignore[no-any-return]

    def _features(
        self, series: Tensor, inside: Tensor | None = None, lengths: Tensor | None = None
    ) -> Tensor:
        """Features (B, 4 filters, T) of the last module, zero outside of the series."""
        repeated = None if lengths is None else _last_step_repeated(series, lengths)
        features = earlier = _cut(series, inside)
        for index, block in enumerate(self.blocks):
            features = _cut(block(features, repeated), inside)
            repeated = None
            if index % RESIDUAL_EVERY == RESIDUAL_EVERY - 1:
                features = self.shortcuts[index // RESIDUAL_EVERY](earlier, features)
                features = earlier = _cut(features, inside)
        return features


def steps_inside(lengths: Tensor, series: Tensor) -> Tensor:
    """1 for each step of a series and 0 beyond its end, in the type of the series: (B, 1, T).

    Args:
        lengths: Number of steps of each series, int64 (B,).
        series: Series (B, C, T).
    """
    steps = torch.arange(series.shape[-1], device=series.device)
    return (steps < lengths.unsqueeze(1)).unsqueeze(1).to(series.dtype)


def _cut(values: Tensor, inside: Tensor | None) -> Tensor:
    return values if inside is None else values * inside


def _last_step_repeated(series: Tensor, lengths: Tensor) -> Tensor:
    """The series with the last step of each in the place of its padding."""
    last = (lengths - 1).view(-1, 1, 1).expand(-1, series.shape[1], 1)
    beyond = torch.arange(series.shape[-1], device=series.device) >= lengths.view(-1, 1, 1)
    return torch.where(beyond, series.gather(2, last), series)
