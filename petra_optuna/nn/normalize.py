"""Scales of inputs and outputs as layers, so that they are part of the exported graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Normalisation ``(x - mean) / std`` of each channel.

    Args:
        mean: Mean of each channel, in the units of the raw input; one value for all channels is allowed.
        std: Standard deviation of each channel, positive.

    Shape:
        Tables (B, C), series (B, C, L), images (B, C, H, W) or volumes to the same shape.

    Raises:
        ValueError: On construction, when lengths differ or a deviation is not positive; in ``forward``, when
            the second dimension of the input has another length.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        _check_scales(mean, std)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, batch: Tensor) -> Tensor:
        """Normalise a batch."""
        channels = len(self.mean)
        if batch.ndim < 2 or channels not in (1, batch.shape[1]):
            raise ValueError(
                f"`normalize` has {channels} channels, the input has shape {tuple(batch.shape)}; "
                "channels are its second dimension"
            )
        if batch.ndim == 4:
            return (batch - self.mean) / self.std
        shape = (-1, *(1 for _ in batch.shape[2:]))
        return (batch - self.mean.view(shape)) / self.std.view(shape)


class Denormalize(nn.Module):
    """Values in the units of the data, ``x std + mean``: the inverse of a normalisation of targets.

    Args:
        mean: Mean of each output, in the units of the targets.
        std: Standard deviation of each output, positive.

    Shape:
        Outputs (B, O) to the same shape.

    Raises:
        ValueError: When lengths differ or a deviation is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        _check_scales(mean, std)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, outputs: Tensor) -> Tensor:
        """Bring a batch into the units of the targets."""
        return outputs * self.std + self.mean


def _check_scales(mean: Sequence[float], std: Sequence[float]) -> None:
    if len(mean) != len(std) or not mean or min(std) <= 0:
        raise ValueError(f"`mean` and `std` need one value a channel, `std` positive; got {mean} and {std}")
