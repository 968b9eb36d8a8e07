"""Sealing the test split: a search cannot read it, and a confirmation reads each of its samples once.

``Task`` seals its test split when it is made. Whoever has the task has the sealed split only: an operation,
a metric or an evaluator that reads it gets an error. ``open_once`` gives a confirmation a readable view; the
task's own split stays sealed. A data set that the user keeps elsewhere is not guarded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NoReturn

from torch.utils.data import Dataset

from petra_optuna.errors import SealedSplitRead
from petra_optuna.tasks.reading import fetch
from petra_optuna.tasks.split import Split


class SealedDataset(Dataset[Any]):
    """A data set that gives its length and no sample.

    Args:
        contents: Data set that is sealed.
    """

    def __init__(self, contents: Dataset[Any]) -> None:
        self._contents = contents

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._contents)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> NoReturn:
        """Refuse to give a sample.

        Raises:
            SealedSplitRead: Always.
        """
        raise SealedSplitRead("the test split was read; only a confirmation may, use the selection split")


class _ReadOnce(Dataset[Any]):
    """A view of a data set that gives each sample once."""

    def __init__(self, contents: Dataset[Any]) -> None:
        self._contents = contents
        self._read: set[int] = set()

    def __len__(self) -> int:
        return len(self._contents)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        self._mark_read([index])
        return self._contents[index]

    def __getitems__(self, indices: Sequence[int]) -> Any:
        self._mark_read(indices)
        return fetch(self._contents, indices)

    def _mark_read(self, indices: Sequence[int]) -> None:
        if again := self._read.intersection(indices):
            raise SealedSplitRead(f"sample {min(again)} of the test split was read twice in one confirmation")
        self._read.update(indices)


def seal(split: Split) -> Split:
    """The split with a data set that refuses to be read; a sealed split is returned as it is."""
    if isinstance(split.dataset, SealedDataset):
        return split
    return dataclasses.replace(split, dataset=SealedDataset(split.dataset))


def contents(split: Split) -> Split:
    """The split as it was before it was sealed; only the task's fingerprint may use it."""
    if isinstance(split.dataset, SealedDataset):
        return dataclasses.replace(split, dataset=split.dataset._contents)
    return split


def open_once(split: Split) -> Split:
    """A view of a sealed split that gives each sample once; only a confirmation may use it.

    Reading a sample for the second time raises ``SealedSplitRead``.

    Example:
        >>> inputs, targets = next(open_once(task.test).batches(64))
        >>> len(targets)
        64
    """
    return dataclasses.replace(split, dataset=_ReadOnce(contents(split).dataset))
