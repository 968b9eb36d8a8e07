"""Tables of time series, from CSV or parquet: rows in the order of time, a finite number in every cell."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from petra_optuna.aliases import Array
from petra_optuna.errors import DataError, one_line
from petra_optuna.tasks.arrow import arrow

Choose = Callable[[Sequence[str]], list[str]]
"""Maps the columns that a file has to those to read."""

HOLE = 1.5
"""Steps of time between two rows from which on rows are missing between them."""


@dataclasses.dataclass(frozen=True)
class SeriesTable:
    """Columns of a table, its rows in the order of time.

    Attributes:
        times: Time of each row, strictly increasing, (N,): seconds for dates, else as the file has it.
        numbers: Columns of finite numbers, by name, each (N,).
        texts: Columns of texts, by name, each of N.
    """

    times: Array
    numbers: Mapping[str, Array]
    texts: Mapping[str, Sequence[str]]

    @property
    def step(self) -> float:
        """Time from a row to the next one, the median over the rows."""
        return float(np.median(np.diff(self.times)))

    @property
    def holes(self) -> Array:
        """1 for each row that is followed by a hole of missing rows, else 0: (N - 1,)."""
        return (np.diff(self.times) > HOLE * self.step).astype(np.float64)

    def channels(self, names: Sequence[str]) -> Array:
        """Columns of numbers side by side, (N, number of names)."""
        return np.stack([self.numbers[name] for name in names], axis=1)


def read_series(
    path: Path, time: str, numbers: Sequence[str] | None = None, texts: Sequence[str] = ()
) -> SeriesTable:
    """Read the columns of a time series.

    Args:
        path: A CSV file in UTF-8 with a header, a parquet file, or a folder of parquet files that are read in
            the order of their names. Parquet needs pyarrow.
        time: Name of the column of times: ISO 8601 dates or numbers.
        numbers: Names of the columns of numbers; all that are neither ``time`` nor ``texts`` when None.
        texts: Names of the columns of texts, such as labels.

    Raises:
        DataError: When the file is missing, empty, cut or not readable, lacks a column, or has a cell that is
            no finite number; when times are no times, not in order, or there twice.
        TaskError: When pyarrow is needed and not installed.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; give the path of a CSV or parquet file")
    is_parquet = path.is_dir() or path.suffix.lower() in (".parquet", ".pq")
    read = _parquet_columns if is_parquet else _csv_columns
    header, columns = read(path, lambda names: _wanted(path, names, time, numbers, texts))
    if len(columns[time]) < 2:
        raise DataError(f"{path} has {len(columns[time])} rows; a series needs 2 or more")
    chosen = numbers or [name for name in header if name != time and name not in texts]
    return SeriesTable(
        times=_times(path, time, columns[time]),
        numbers={name: _numbers(path, name, columns[name]) for name in chosen},
        texts={name: [str(cell) for cell in columns[name]] for name in texts},
    )


def _wanted(
    path: Path, names: Sequence[str], time: str, numbers: Sequence[str] | None, texts: Sequence[str]
) -> list[str]:
    """The columns to read, of those that a file has."""
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    if twice:
        raise DataError(f"{path} has two columns {twice[0]!r}; rename one")
    asked = [time, *(names if numbers is None else numbers), *texts]
    missing = [name for name in asked if name not in names]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r}; it has {', '.join(names)}")
    return list(dict.fromkeys(asked))


def _csv_columns(path: Path, choose: Choose) -> tuple[list[str], dict[str, list[str]]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            if not header:
                raise DataError(f"{path} is empty; expected a header and rows")
            rows = []
            for row in reader:
                if row and len(row) != len(header):
                    raise DataError(
                        f"{path}:{reader.line_num} has {len(row)} cells, the header {len(header)}; the file "
                        "may be cut"
                    )
                if row:
                    rows.append(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a readable CSV file in UTF-8: {one_line(error)}") from error
    places = {name: header.index(name) for name in choose(header)}
    return header, {name: [row[place] for row in rows] for name, place in places.items()}


def _parquet_columns(path: Path, choose: Choose) -> tuple[list[str], dict[str, Any]]:
    library = arrow("parquet")
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} has no *.parquet file; give a CSV or parquet file")
    header: list[str] = []
    parts: list[dict[str, Any]] = []
    for file in files:
        try:
            header = list(library.read_schema(file).names)
            table = library.read_table(file, columns=choose(header))
        except (OSError, ValueError, EOFError) as error:  # pyarrow's own errors are of these kinds
            raise DataError(f"{file} is not a readable parquet file: {one_line(error)}") from error
        parts.append({name: table.column(name).to_numpy() for name in table.column_names})
    return header, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _numbers(path: Path, name: str, cells: Sequence[Any]) -> Array:
    values = np.empty(len(cells))
    for row, cell in enumerate(cells):
        try:
            values[row] = float(cell)
        except (TypeError, ValueError):
            values[row] = math.nan
        if not math.isfinite(values[row]):
            raise DataError(
                f"{path}: column {name!r} has {str(cell)!r} in row {row + 1}, not a finite number; fill it, "
                "remove the row or leave the column out"
            )
    return values


def _times(path: Path, name: str, cells: Any) -> Array:
    values = _seconds(path, name, cells)
    late = np.flatnonzero(np.diff(values) <= 0)
    if len(late):
        row = int(late[0])
        what = "is there twice" if values[row] == values[row + 1] else "is after that of the next row"
        raise DataError(
            f"{path}: time {str(cells[row])!r} of row {row + 1} {what}; sort the rows by {name!r} and keep "
            "one of each time"
        )
    return values


def _seconds(path: Path, name: str, cells: Any) -> Array:
    if isinstance(cells, np.ndarray) and np.issubdtype(cells.dtype, np.datetime64):
        if np.isnat(cells).any():
            raise DataError(f"{path}: column {name!r} has no time in row {int(np.isnat(cells).argmax()) + 1}")
        return np.asarray(cells.astype("datetime64[us]").astype(np.int64) / 1e6)
    values = np.empty(len(cells))
    for row, cell in enumerate(cells):
        values[row] = _second(cell)
        if not math.isfinite(values[row]):
            raise DataError(
                f"{path}: column {name!r} has {str(cell)!r} in row {row + 1}, neither a number nor a date as "
                "2016-01-11 17:00:00"
            )
    return values


def _second(cell: Any) -> float:
    """A number as it is, a date in seconds; NaN for what is neither."""
    try:
        return float(cell)
    except (TypeError, ValueError):
        pass
    try:
        moment = datetime.fromisoformat(str(cell).strip())
    except ValueError:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
