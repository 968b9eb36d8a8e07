"""Sets of samples held in memory as integers, read a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from petra_optuna.nn.inputs import Inputs
from petra_optuna.tasks.fingerprint import tensor_sha256
from petra_optuna.tasks.split import Split


class SampleArray(Dataset[tuple[Tensor, Tensor]]):
    """Data set of samples and their targets in memory.

    Args:
        samples: Integers (N, ...): uint8 images (N, C, H, W), int16 clips (N, C, T).
        targets: Class indices, int64 (N,), or targets of another kind (N, ...).
        scale: Divisor of the samples, which are returned as float32.
    """

    def __init__(self, samples: Tensor, targets: Tensor, scale: float) -> None:
        self.samples, self.targets, self.scale = samples, targets, scale

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One sample (...) and its class."""
        return self.samples[index].float() / self.scale, self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A batch of samples (B, ...) and classes (B,)."""
        rows = torch.as_tensor(indices)
        return self.samples[rows].float() / self.scale, self.targets[rows]

    def fingerprint(self) -> str:
        """SHA-256 of samples, targets and scale."""
        return tensor_sha256(self.samples, self.targets, torch.tensor(self.scale))


def whole_batch(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Collate function of data sets that return whole batches."""
    return batch


def array_split(
    samples: Tensor,
    targets: Tensor,
    scale: float,
    augment: Callable[[Inputs, torch.Generator], Inputs] | None = None,
) -> Split:
    """A split of an ``SampleArray``, which is read in whole batches."""
    return Split(SampleArray(samples, targets, scale), whole_batch, augment=augment)


def first_input(inputs: Inputs) -> Tensor:
    """The only input of a model of images or clips.

    Raises:
        TypeError: When the inputs are keyword inputs.
    """
    if isinstance(inputs, dict):
        raise TypeError("the task has one positional input")
    return inputs[0]
