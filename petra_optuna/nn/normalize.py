"""Input normalisation as a layer, so that it is part of the exported graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Normalisation ``(x - mean) / std`` of each channel.

    Args:
        mean: Mean of each channel, in the units of the raw input.
        std: Standard deviation of each channel, positive.

    Shape:
        Images (B, C, H, W) to images of the same shape.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean or min(std) <= 0:
            raise ValueError(
                f"`mean` and `std` need one value a channel, `std` positive; got {mean} and {std}"
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise a batch."""
        return (images - self.mean) / self.std
