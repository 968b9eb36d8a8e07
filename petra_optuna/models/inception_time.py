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

    def forward(self, series: Tensor) -> Tensor:
        """Map series (B, channels, T) to features (B, 4 filters, T)."""
        reduced = self.bottleneck(series)
        branches = [branch(reduced) for branch in self.branches]
        joined = torch.cat([*branches, self.pooled(series)], dim=1)
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

    A shortcut spans every three modules.

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

    def forward(self, series: Tensor) -> Tensor:
        """Map series (B, in_channels, T) to outputs (B, outputs)."""
        features = earlier = series
        for index, block in enumerate(self.blocks):
            features = block(features)
            if index % RESIDUAL_EVERY == RESIDUAL_EVERY - 1:
                features = earlier = self.shortcuts[index // RESIDUAL_EVERY](earlier, features)
        return self.head(features.mean(-1))  # type: ignore[no-any-return]
