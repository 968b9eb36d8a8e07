"""Events of all clients in memory, one compact array a column, in the order of their files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from petra_optuna.errors import FOREIGN_ERRORS, DataError
from petra_optuna.tasks.arrow import arrow
from petra_optuna.tasks.events.schema import EventSchema, transformed

MISSING = 0
"""Code of a missing text; codes of texts begin at 1."""


class Coder:
    """Numbers texts from 1 in the order of their first appearance; missing and empty ones are ``MISSING``.

    Attributes:
        texts: The texts in the order of their codes.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._codes: dict[str, int] = {}

    def encode(self, column: Any) -> np.ndarray:
        """Codes of a column of pyarrow, in the smallest unsigned type that holds them."""
        encoded = column if arrow("types").is_dictionary(column.type) else column.dictionary_encode()
        texts = encoded.dictionary.cast(arrow().string()).to_pylist()
        # One more at the end, for the index -1 of what is missing.
        codes = np.array([*map(self._code, texts), MISSING], dtype=np.int64)
        indices = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return np.asarray(codes.astype(np.min_scalar_type(len(self.texts)))[indices])

    def _code(self, text: str | None) -> int:
        if not text:
            return MISSING
        if text not in self._codes:
            self.texts.append(text)
            self._codes[text] = len(self.texts)
        return self._codes[text]


@dataclasses.dataclass(frozen=True)
class Events:
    """Events of all clients, in the order of their files.

    Attributes:
        clients: Code of each event's client (E,), from 1.
        times: Time of each event (E,), float64.
        categories: Codes of each column of categories, (E,) each.
        numbers: Values of each numeric column, float32 (E,) each.
        client_names: Names of the clients in the order of their codes.
        category_texts: Texts of each column of categories in the order of their codes.
    """

    clients: np.ndarray
    times: np.ndarray
    categories: tuple[np.ndarray, ...]
    numbers: tuple[np.ndarray, ...]
    client_names: tuple[str, ...]
    category_texts: tuple[tuple[str, ...], ...]


def gather(batches: Iterable[Any], schema: EventSchema, described: str) -> Events:
    """Read all events.

    Args:
        batches: Record batches or tables of pyarrow with the columns of the schema.
        schema: Columns to read.
        described: What is read, in the words of the errors.

    Raises:
        DataError: When a client, a time or a number is missing or not finite, or a time is no time.
    """
    of_clients, of_categories = Coder(), [Coder() for _ in schema.categories]
    clients, times = [], []
    categories: list[list[np.ndarray]] = [[] for _ in schema.categories]
    numbers: list[list[np.ndarray]] = [[] for _ in schema.numbers]
    clock, rows = Clock(schema.time, described), 0
    for batch in batches:
        codes = of_clients.encode(batch.column(schema.client))
        _refuse(codes == MISSING, rows, f"no client in column {schema.client!r}", described)
        clients.append(codes)
        times.append(clock.read(batch.column(schema.time), rows))
        for chunks, coder, category in zip(categories, of_categories, schema.categories, strict=True):
            chunks.append(coder.encode(batch.column(category.name)))
        for chunks, number in zip(numbers, schema.numbers, strict=True):
            values = _numbers(batch.column(number.name), number.name, described)
            _refuse(~np.isfinite(values), rows, f"no finite number in column {number.name!r}", described)
            chunks.append(transformed(values, number.transform))
        rows += batch.num_rows
    return Events(
        np.concatenate(clients),
        np.concatenate(times),
        tuple(map(np.concatenate, categories)),
        tuple(map(np.concatenate, numbers)),
        tuple(of_clients.texts),
        tuple(tuple(coder.texts) for coder in of_categories),
    )


class Clock:
    """Reads a column of times: numbers, or dates and times as pyarrow or ISO 8601 has them.

    Args:
        name: Name of the column.
        described: What is read, in the words of the errors.
    """

    def __init__(self, name: str, described: str) -> None:
        self._name, self._described = name, described
        self._reads_numbers: bool | None = None

    def read(self, column: Any, rows: int) -> np.ndarray:
        """Times (E,), float64: the numbers themselves, or microseconds.

        Args:
            column: Column of pyarrow.
            rows: Number of rows before it.

        Raises:
            DataError: When one is missing or no time.
        """
        if arrow("types").is_boolean(column.type):
            raise self._no_time(column)
        if self._reads_numbers is not False:
            try:
                return self._checked(column.cast(arrow().float64()), True, rows)
            except arrow().ArrowException as error:
                if self._reads_numbers:
                    raise self._no_time(column) from error
        try:
            return self._checked(column.cast(arrow().timestamp("us")).cast(arrow().int64()), False, rows)
        except arrow().ArrowException as error:
            raise self._no_time(column) from error

    def _checked(self, column: Any, are_numbers: bool, rows: int) -> np.ndarray:
        self._reads_numbers = are_numbers
        missing = column.is_null().to_numpy(zero_copy_only=False)
        times = np.asarray(column.fill_null(0).to_numpy(zero_copy_only=False), dtype=np.float64)
        _refuse(missing | ~np.isfinite(times), rows, f"no time in column {self._name!r}", self._described)
        return times

    def _no_time(self, column: Any) -> DataError:
        first = next((value for value in column.to_pylist() if value is not None), None)
        return DataError(
            f"column {self._name!r} of {self._described} holds neither numbers nor ISO times throughout (one "
            f"of these is {first!r}); give numbers, or times as 2017-01-31 or 2017-01-31 18:55:24"
        )


def _numbers(column: Any, name: str, described: str) -> np.ndarray:
    """Values (E,), float64; NaN where one is missing."""
    try:
        values = column.cast(arrow().float64())
    except (arrow().ArrowException, *FOREIGN_ERRORS) as error:
        raise DataError(
            f"column {name!r} of {described} is of type {column.type}, no number; name another column"
        ) from error
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)


def _refuse(wrong: np.ndarray, rows: int, what: str, described: str) -> None:
    if wrong.any():
        first = rows + int(np.argmax(wrong)) + 1
        raise DataError(f"row {first} of {described} has {what}; mend the row or leave it out")
