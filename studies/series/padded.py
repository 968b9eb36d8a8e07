"""Series of several lengths: batches padded to their longest, and a network that gets the lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from petra_optuna.models import InceptionTime
from petra_optuna.nn.normalize import Normalize
from petra_optuna.tasks.fingerprint import tensor_sha256
from petra_optuna.tasks.series.network import Scales
from studies.series.ts_file import LabeledSeries

PERCENTILE = 90
"""Percentile of the lengths at which files are measured."""
EXAMPLES = 8
"""Samples at the beginning of selection that files are measured on."""


class SeriesSet(Dataset[tuple[Tensor, int]]):
    """Data set of labelled series.

    Args:
        data: Series of a file.
        rows: Its rows, in order.
        repeats: How often an epoch reads each of them.
    """

    def __init__(self, data: LabeledSeries, rows: Sequence[int], repeats: int = 1) -> None:
        index = {label: number for number, label in enumerate(data.classes)}
        self.series = [torch.from_numpy(data.series[row]) for row in rows] * repeats
        self.targets = torch.tensor([index[data.labels[row]] for row in rows] * repeats)

    def __len__(self) -> int:
        """Number of series that an epoch reads."""
        return len(self.series)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        """One series (channels, its length) and its class."""
        return self.series[row], int(self.targets[row])

    def fingerprint(self) -> str:
        """SHA-256 of all series and classes."""
        return tensor_sha256(*self.series, self.targets)


class PaddedInceptionTime(nn.Module):
    """InceptionTime on standardised channels of series of several lengths.

    Args:
        scales: Scales of the training data.
        classes: Number of logits.
        filters: Number of channels of each branch of a module.
    """

    def __init__(self, scales: Scales, classes: int, filters: int = 32) -> None:
        super().__init__()
        self.normalize = Normalize(scales.mean, scales.std)
        self.model = InceptionTime(len(scales.mean), classes, filters)

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        """Map series (B, C, T) of these lengths (B,), int64, to logits (B, classes)."""
        return self.model(self.normalize(series), lengths)  # type: ignore[no-any-return]


def padded_batch(samples: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Series (B, C, T) padded with zeros at their end, their lengths (B,) and classes (B,)."""
    longest = max(series.shape[1] for series, _ in samples)
    padded = torch.stack([nn.functional.pad(series, (0, longest - series.shape[1])) for series, _ in samples])
    lengths = torch.tensor([series.shape[1] for series, _ in samples])
    return padded, lengths, torch.tensor([target for _, target in samples])


def typical_first(lengths: Sequence[int]) -> list[int]:
    """Rows in an order that begins with those nearest to the 90th percentile of the lengths."""
    typical = np.percentile(lengths, PERCENTILE)
    nearest = sorted(range(len(lengths)), key=lambda row: (abs(lengths[row] - typical), row))[:EXAMPLES]
    return [*nearest, *(row for row in range(len(lengths)) if row not in nearest)]
