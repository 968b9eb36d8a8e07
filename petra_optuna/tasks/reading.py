"""Reading samples of a data set: whole batches where it gives them, and the one that fails by its number."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from petra_optuna.errors import FOREIGN_ERRORS, DataError, one_line

UNREADABLE = (
    *(*FOREIGN_ERRORS, OSError, SyntaxError),  # Pillow reports broken PNGs by syntax
    *(struct.error, zlib.error, zipfile.BadZipFile, pickle.UnpicklingError),
    # The sizes in a damaged header ask for memory, and decoders written in C report by SystemError.
    *(MemoryError, SystemError, ReferenceError, NameError, Warning),
    # Let through, a loop over the batches would take this for its end and leave the rest out.
    *(StopIteration, StopAsyncIteration),
)
"""What reading a sample raises: all kinds of Python's own exceptions but those that end the program."""


def fetch(dataset: Dataset[Any], rows: Sequence[int]) -> Any:
    """What the data set gives for these rows: a list of samples, or a batch where it makes batches."""
    whole = getattr(dataset, "__getitems__", None)
    return whole(rows) if whole is not None else [dataset[row] for row in rows]


class Named(Dataset[Any]):
    """A view of a data set whose errors name the sample.

    Args:
        dataset: Data set to read.
        name: Name of its split.
    """

    def __init__(self, dataset: Dataset[Any], name: str) -> None:
        self._dataset, self._name = dataset, name

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]

    def __getitem__(self, row: int) -> Any:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> Any:
        """Read rows.

        Raises:
            DataError: When a sample cannot be read; the text names it.
        """
        try:
            return fetch(self._dataset, rows)
        except UNREADABLE as error:
            row = self._first_unreadable(rows)
            which = f"sample {row}" if row is not None else f"one of the samples {min(rows)} to {max(rows)}"
            raise DataError(
                f"{which} of the {self._name} split cannot be read: {type(error).__name__}: "
                f"{one_line(error)}; mend it or leave it out"
            ) from error

    def _first_unreadable(self, rows: Sequence[int]) -> int | None:
        for row in rows:
            try:
                fetch(self._dataset, [row])
            except UNREADABLE:
                return row
        return None
