"""Order and augmentation of image sets, a batch at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def positions_in_class(targets: Tensor) -> Tensor:
    """Position of each sample (N,) among those of its class, in file order: (N,)."""
    positions = torch.empty_like(targets)
    for label in set(targets.tolist()):
        mask = targets == label
        positions[mask] = torch.arange(int(mask.sum()))
    return positions


def random_shift(images: Tensor, pixels: int, mode: str, generator: torch.Generator) -> Tensor:
    """Move each image by up to ``pixels`` in both directions; ``mode`` as ``functional.pad`` has it."""
    count, _, height, width = images.shape
    padded = functional.pad(images, (pixels,) * 4, mode=mode)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    rows, columns = torch.randint(0, 2 * pixels + 1, (2, count), generator=generator)
    return windows[torch.arange(count), :, rows, columns]


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability one half."""
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(3), images)
