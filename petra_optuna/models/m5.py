"""M5, a classifier of raw audio (Dai et al. 2016, arXiv 1610.00087, table 1)."""

from __future__ import annotations

from torch import Tensor, nn

FIRST_KERNEL, FIRST_STRIDE, POOLED = 80, 4, 4
"""Samples that the first convolution reads and steps over; positions that each pooling joins."""

SHORTEST = FIRST_STRIDE * POOLED**4
"""Least number of samples in a clip: fewer leave nothing after the last pooling."""


class M5(nn.Module):
    """Four convolutions over time, each with batch norm, ReLU and pooling; mean over time, linear head.

    The widths are 1, 1, 2 and 4 times ``embedding``; the paper's network has 128, 128, 256 and 512. The
    convolutions are padded, so that a clip of T samples has T / 1024 positions at the end. The mean over
    them takes clips of any sample rate and of any length from 1,024 samples.

    Args:
        in_channels: Number of channels of the clips.
        classes: Number of logits.
        embedding: Number of filters of the first convolution.
    """

    def __init__(self, in_channels: int, classes: int, embedding: int = 128) -> None:
        super().__init__()
        widths = (in_channels, embedding, embedding, 2 * embedding, 4 * embedding)
        kernels = ((FIRST_KERNEL, FIRST_STRIDE, (FIRST_KERNEL - FIRST_STRIDE) // 2), *[(3, 1, 1)] * 3)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv1d(before, width, kernel, stride, padding, bias=False),
                    nn.BatchNorm1d(width),
                    nn.ReLU(),
                    nn.MaxPool1d(POOLED),
                )
                for before, width, (kernel, stride, padding) in zip(widths, widths[1:], kernels, strict=False)
            )
        )
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Map clips (B, in_channels, T) to logits (B, classes)."""
        return self.head(self.stages(clips).mean(-1))  # type: ignore[no-any-return]
