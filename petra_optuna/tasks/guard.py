"""The test split stays shut during a search, and a confirmation reads each of its samples once.

``Task`` seals its test split when it is made. Whoever holds the task holds the sealed split: an operation,
a metric or an evaluator that reads it gets an error. ``open_once`` gives a readable view of it to a
confirmation, while the task's own stays sealed. A data set that the user keeps elsewhere is out of reach.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NoReturn

from torch.utils.data import Dataset

from petra_optuna.errors import SealedSplitRead
from petra_optuna.tasks.split import Split


class SealedDataset(Dataset[Any]):
    """A data set that tells its length and nothing else.

    Args:
        contents: What is sealed.
    """

    def __init__(self, contents: Dataset[Any]) -> None:
        self._contents = contents

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._contents)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> NoReturn:
        """Refuse.

        Raises:
            SealedSplitRead: Always.
        """
        raise SealedSplitRead("the test split was read; only `petra confirm` may, use the selection split")


class _ReadOnce(Dataset[Any]):
    """A view of a data set that gives each sample once."""

    def __init__(self, contents: Dataset[Any]) -> None:
        self._contents = contents
        self._read: set[int] = set()

    def __len__(self) -> int:
        return len(self._contents)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        self._note([index])
        return self._contents[index]

    def __getitems__(self, indices: Sequence[int]) -> Any:
        self._note(indices)
        whole = getattr(self._contents, "__getitems__", None)
        return whole(indices) if whole is not None else [self._contents[index] for index in indices]

    def _note(self, indices: Sequence[int]) -> None:
        if again := self._read.intersection(indices):
            raise SealedSplitRead(f"sample {min(again)} of the test split was read twice in one confirmation")
        self._read.update(indices)


def sealed(split: Split) -> Split:
    """The split with its samples out of reach; one that is sealed already is returned as it is."""
    if isinstance(split.dataset, SealedDataset):
        return split
    return dataclasses.replace(split, dataset=SealedDataset(split.dataset))


def contents(split: Split) -> Split:
    """The split as it was before it was sealed: for its hash, and for nothing else."""
    if isinstance(split.dataset, SealedDataset):
        return dataclasses.replace(split, dataset=split.dataset._contents)
    return split


def open_once(split: Split) -> Split:
    """A view of a sealed split that gives each sample once: for a confirmation, and for nothing else.

    Raises when read:
        SealedSplitRead: When a sample is read for the second time.
    """
    return dataclasses.replace(split, dataset=_ReadOnce(contents(split).dataset))
