"""InceptionTime for series of fixed or changing length (Ismail Fawaz et al., arXiv 1909.04939)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

KERNEL_SIZES = (39, 19, 9)
"""The paper's 40, 20 and 10, one less: odd kernels keep the length with equal padding on both sides."""

RESIDUAL_EVERY = 3


class InceptionModule(nn.Module):
    """Three long convolutions of a bottleneck beside one of the pooled input, joined by channels.

    Args:
        channels: Of the input.
        filters: Of each of the four branches.
        bottleneck: Channels that the long convolutions read; a single input channel goes in as it is.
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
    """Adds a projection of earlier features to later ones.

    Args:
        channels: Of the earlier features.
        width: Of the later ones.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(nn.Conv1d(channels, width, 1, bias=False), nn.BatchNorm1d(width))
        self.activation = nn.ReLU()

    def forward(self, earlier: Tensor, later: Tensor) -> Tensor:
        """Map (B, channels, T) and (B, width, T) to (B, width, T)."""
        return self.activation(self.projection(earlier) + later)  # type: ignore[no-any-return]


class InceptionTime(nn.Module):
    """Inception modules with a shortcut over every three, mean over time, linear head.

    Args:
        in_channels: Of the series.
        outputs: Logits, or values to predict.
        filters: Of each branch of a module; features are four times as wide.
        depth: Number of modules.
        bottleneck: Channels that the long convolutions of a module read.
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
