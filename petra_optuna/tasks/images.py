"""Image sets held in memory as bytes, read and augmented a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from petra_optuna.nn.inputs import Inputs
from petra_optuna.tasks.fingerprint import tensor_sha256
from petra_optuna.tasks.split import Split


class ImageArray(Dataset[tuple[Tensor, Tensor]]):
    """Data set of images and class indices in memory.

    Args:
        images: uint8 (N, C, H, W).
        targets: int64 (N,).
        scale: Divisor of the pixels, which are returned as float32.
    """

    def __init__(self, images: Tensor, targets: Tensor, scale: float) -> None:
        self.images, self.targets, self.scale = images, targets, scale

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One image (C, H, W) and its class."""
        return self.images[index].float() / self.scale, self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A batch of images (B, C, H, W) and classes (B,)."""
        rows = torch.as_tensor(indices)
        return self.images[rows].float() / self.scale, self.targets[rows]

    def fingerprint(self) -> str:
        """SHA-256 of images, targets and scale."""
        return tensor_sha256(self.images, self.targets, torch.tensor(self.scale))


def whole_batch(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Collate function of data sets that return whole batches."""
    return batch


def image_split(
    images: Tensor,
    targets: Tensor,
    scale: float,
    augment: Callable[[Inputs, torch.Generator], Inputs] | None = None,
) -> Split:
    """A split of an ``ImageArray``, which is read in whole batches."""
    return Split(ImageArray(images, targets, scale), whole_batch, augment=augment)


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


def first_input(inputs: Inputs) -> Tensor:
    """The only input of an image model.

    Raises:
        TypeError: When the inputs are keyword inputs.
    """
    if isinstance(inputs, dict):
        raise TypeError("image tasks have one positional input")
    return inputs[0]
