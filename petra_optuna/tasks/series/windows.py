"""Windows of a series as samples, and splits that follow one another in time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from petra_optuna.aliases import Array
from petra_optuna.errors import DataError
from petra_optuna.tasks.arrays import whole_batch
from petra_optuna.tasks.fingerprint import tensor_sha256
from petra_optuna.tasks.split import Split

Indices = npt.NDArray[np.int64]
PARTS = ("train", "selection", "test")


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """Data set of windows of one table of rows, which is held once however much the windows overlap.

    Args:
        rows: Channels at each step, float32 (N, C).
        starts: First row of each window, int64 (M,).
        length: Rows of a window.
        targets: Target of each window: float32 (M,) or class indices int64 (M,).
    """

    def __init__(self, rows: Tensor, starts: Tensor, length: int, targets: Tensor) -> None:
        self.rows, self.starts, self.length, self.targets = rows.contiguous(), starts, length, targets
        self._windows = self.rows.unfold(0, length, 1)

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.starts)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One window (C, length) and its target."""
        return self._windows[self.starts[index]], self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A batch of windows (B, C, length) and targets (B,)."""
        chosen = torch.as_tensor(indices)
        return self._windows[self.starts[chosen]], self.targets[chosen]

    def fingerprint(self) -> str:
        """SHA-256 of rows, windows and targets."""
        return tensor_sha256(self.rows, self.starts, torch.tensor(self.length), self.targets)


@dataclasses.dataclass(frozen=True)
class Sliding:
    """Splits of sliding windows that follow one another in time.

    Attributes:
        splits: ``train``, ``selection`` and ``test``.
        rows: Channels at each step of train (N, C), of which scales are made.
        starts: First row of each window of train (M,).
        targets: Targets of train (M,).
        holes: Holes of missing rows in all parts; windows across them are left out.
    """

    splits: dict[str, Split]
    rows: Array
    starts: Indices
    targets: Array
    holes: int


def sliding_splits(
    rows: Array,
    values: Array,
    holes: Array,
    *,
    window: int,
    horizon: int,
    shares: Sequence[float],
    gap: int | None = None,
    stride: int = 1,
    train_stride: int | None = None,
) -> Sliding:
    """Cut a series into parts, and each part into windows; no row is in two parts.

    Args:
        rows: Channels at each step (N, C).
        values: What is predicted, at each step: values, or class indices as integers (N,).
        holes: 1 where a row is followed by missing rows, else 0: (N - 1,).
        window: Rows of a window.
        horizon: Rows behind it that its target covers (see ``targets_behind``).
        shares: Shares of the rows for train, selection and test.
        gap: Rows between two parts that belong to none; ``window`` when None.
        stride: Rows from a window to the next one.
        train_stride: The same in train; ``stride`` when None.

    Raises:
        DataError: When a part has fewer than two windows.
    """
    splits, trained = {}, None
    parts = parts_in_time(len(rows), window + horizon, window if gap is None else gap, shares)
    for name, part in parts.items():
        own = slice(part.start, part.stop)
        step = (train_stride or stride) if name == "train" else stride
        starts = starts_of(holes[part.start : part.stop - 1], window, horizon, step)
        if len(starts) < 2:
            raise DataError(f"the {name} part has {len(starts)} windows without missing rows; 2 are needed")
        targets = targets_behind(values[own], starts, window, horizon)
        splits[name] = windows_split(rows[own], starts, window, targets)
        trained = trained or (rows[own], starts, targets)
    assert trained is not None
    return Sliding(splits, *trained, holes=int(holes.sum()))


def windows_split(rows: Array, starts: Indices, length: int, targets: Array) -> Split:
    """A split of ``Windows``, which is read in whole batches.

    Args:
        rows: Channels at each step (N, C).
        starts: First row of each window (M,).
        length: Rows of a window.
        targets: Values or class indices (M,).
    """
    dtype = torch.float32 if np.issubdtype(targets.dtype, np.floating) else torch.int64
    dataset = Windows(
        torch.from_numpy(np.ascontiguousarray(rows)).float(),
        torch.from_numpy(np.ascontiguousarray(starts)).long(),
        length,
        torch.from_numpy(np.ascontiguousarray(targets)).to(dtype),
    )
    return Split(dataset, whole_batch)


def parts_in_time(count: int, span: int, gap: int, shares: Sequence[float]) -> dict[str, range]:
    """Rows of train, selection and test, in this order in time, with a gap between each two.

    Args:
        count: Rows of the table.
        span: Rows that a sample covers, its target included.
        gap: Rows that belong to no part, between each two parts.
        shares: Shares of the rows outside of the gaps, for each part.

    Raises:
        DataError: When a part has room for fewer than two samples.
    """
    usable = count - (len(PARTS) - 1) * gap
    ends = [round(usable * sum(shares[: index + 1]) / sum(shares)) for index in range(len(PARTS))]
    begins = [0, *ends[:-1]]
    parts = {
        name: range(begin + index * gap, end + index * gap)
        for index, (name, begin, end) in enumerate(zip(PARTS, begins, ends, strict=True))
    }
    for name, rows in parts.items():
        if len(rows) <= span:
            raise DataError(
                f"the series has {count} rows, which leaves {max(0, len(rows))} for {name}: fewer than two "
                f"samples of {span} rows, with gaps of {gap}; give a longer series or a shorter window"
            )
    return parts


def starts_of(holes: Array, window: int, horizon: int, stride: int) -> Indices:
    """First rows of the windows of a part that no hole interrupts, up to the end of their targets.

    Args:
        holes: 1 where a row is followed by missing rows, else 0: (N - 1,) for N rows.
        window: Rows of a window.
        horizon: Rows behind it that its target covers.
        stride: Rows from a window to the next one.
    """
    span = window + horizon
    starts = np.arange(0, len(holes) + 2 - span, stride)
    before = np.concatenate([[0.0], np.cumsum(holes)])
    return np.asarray(starts[before[starts + span - 1] == before[starts]])


def targets_behind(values: Array, starts: Indices, window: int, horizon: int) -> Array:
    """The target of each window, from the ``horizon`` rows behind it.

    Of values it is their mean over these rows, of class indices the one of the last row. A horizon of 0
    stands for the window's own last row.

    Args:
        values: Values, or class indices as integers (N,).
        starts: First row of each window (M,).
        window: Rows of a window.
        horizon: Rows behind it.
    """
    if horizon == 0 or np.issubdtype(values.dtype, np.integer):
        return np.asarray(values[starts + window + horizon - 1])
    means = np.lib.stride_tricks.sliding_window_view(values, horizon).mean(axis=1)
    return np.asarray(means[starts + window])
