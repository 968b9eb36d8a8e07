"""Batches of clients: their events padded to the longest of a batch, and slices of them for CoLES."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from petra_optuna.models.coles import random_slices
from petra_optuna.nn.inputs import DynamicAxes, Inputs
from petra_optuna.tasks.events.store import EventStore

CLASS, ROLE, CLIENT = 0, 1, 2
"""Columns of the targets: class index (-1 without), role of the row, number of the client."""
SCORED, FITTED = 0, 1
"""Roles: the metric scores a row, or fits its classifier on it."""
PERCENTILE = 90
"""Percentile of the lengths of a split that its first rows have: files are measured at that length."""
FIRST_ROWS = 8


class ClientEvents(Dataset[tuple[dict[str, Tensor], Tensor]]):
    """Whole sequences of clients, or a part of each, read from mapped files a batch at a time.

    A batch is ``categories`` int64 (B, T, C), ``numbers`` float32 (B, T, N), whichever the schema has, and
    ``lengths`` int64 (B,), with targets int64 (B, 3); zeros fill up shorter sequences at their end.

    Args:
        store: Events of all clients.
        clients: Number of each row's client (rows,).
        roles: Role of each row (rows,).
        starts: First event of each row, from the first of its client; None for the last events, as many as
            the schema reads.
        lengths: Number of events of each row; given with ``starts``.

    Attributes:
        targets: Class index of each row, int64 (rows,).
        lengths: Number of events of each row, int64 (rows,).
    """

    def __init__(
        self,
        store: EventStore,
        clients: np.ndarray,
        roles: np.ndarray,
        starts: np.ndarray | None = None,
        lengths: np.ndarray | None = None,
    ) -> None:
        self._store = store
        self.clients, self.roles = clients, roles
        self.lengths: np.ndarray = store.lengths[clients] if lengths is None else lengths
        if starts is None:
            self._first = store.offsets[clients + 1] - self.lengths
        else:
            self._first = store.offsets[clients] + starts
        self.targets = store.targets[clients].astype(np.int64)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.clients)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
        """A batch of one row."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
        """A batch of rows."""
        rows = np.asarray(indices)
        lengths, schema = self.lengths[rows], self._store.schema
        inputs: dict[str, Tensor] = {}
        if schema.categories:
            padded = _padded(self._store.categories, self._first[rows], lengths)
            inputs["categories"] = torch.from_numpy(padded.astype(np.int64))
        if schema.numbers:
            inputs["numbers"] = torch.from_numpy(_padded(self._store.numbers, self._first[rows], lengths))
        inputs["lengths"] = torch.from_numpy(lengths.astype(np.int64))
        columns = (self.targets[rows], self.roles[rows], self.clients[rows])
        return inputs, torch.from_numpy(np.stack(columns, axis=1).astype(np.int64))

    def fingerprint(self) -> str:
        """SHA-256 of the stored events, and of which rows these are."""
        digest = hashlib.sha256(self._store.facts["sha256"].encode())
        for array in (self.clients, self.roles, self._first, self.lengths):
            digest.update(np.ascontiguousarray(array, dtype=np.int64).tobytes())
        return digest.hexdigest()


def dynamic_axes(store: EventStore) -> DynamicAxes:
    """The time axis of the inputs that have one."""
    parts = (("categories", store.schema.categories), ("numbers", store.schema.numbers))
    return {name: {1: "time"} for name, columns in parts if columns}


def measured_first(lengths: np.ndarray) -> np.ndarray:
    """The order of a split's rows: the eight nearest to the 90th percentile of the lengths, then by length.

    Files are measured on the first rows of the selection split, so at that length. Behind them rows of like
    length share a batch, which is padded little.

    Args:
        lengths: Number of events of each row (rows,).
    """
    by_length = np.argsort(lengths, kind="stable")
    target = np.percentile(lengths, PERCENTILE, method="higher") if len(lengths) else 0
    nearest = np.argsort(np.abs(lengths - target), kind="stable")[:FIRST_ROWS]
    return np.concatenate([nearest, by_length[~np.isin(by_length, nearest)]])


def sliced(inputs: Inputs, generator: torch.Generator, count: int, shortest: int, longest: int) -> Inputs:
    """Random slices of each sequence of a batch, those of one sequence one behind the other.

    Args:
        inputs: Batch of B sequences.
        generator: Generator that draws them.
        count: Number of slices of each.
        shortest: Least number of events of a slice; shorter sequences are taken whole.
        longest: Largest number of events of a slice.

    Returns:
        Batch of ``B count`` sequences.

    Raises:
        TypeError: When the inputs are not by name.
    """
    if not isinstance(inputs, dict):
        raise TypeError("events are keyword inputs")
    starts, sizes = random_slices(inputs["lengths"], count, shortest, longest, generator)
    sizes = sizes.flatten()
    steps = torch.arange(int(sizes.max()))
    is_event = steps < sizes.unsqueeze(1)
    events = (starts.flatten().unsqueeze(1) + steps) * is_event
    rows = torch.arange(len(starts)).repeat_interleave(count).unsqueeze(1)
    slices = {
        name: values[rows, events] * is_event.unsqueeze(2).to(values.dtype)
        for name, values in inputs.items()
        if name != "lengths"
    }
    return {**slices, "lengths": sizes}


def _padded(columns: np.ndarray, first: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Rows ``first`` to ``first + length`` of an array (E, C), side by side with zeros behind: (B, T, C)."""
    batch = np.zeros((len(first), int(lengths.max()), columns.shape[1]), columns.dtype)
    for row, (begin, length) in enumerate(zip(first.tolist(), lengths.tolist(), strict=True)):
        batch[row, :length] = columns[begin : begin + length]
    return batch
