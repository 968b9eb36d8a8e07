"""Columns of CSV and parquet files, read by pyarrow in batches, so that a file need not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from petra_optuna.errors import DataError, one_line
from petra_optuna.tasks.arrow import arrow

Kind = Literal["text", "number"]
"""How a column of a CSV file is read; parquet files know their types."""

_BLOCK_BYTES, _BATCH_ROWS = 2**24, 2**18
SUFFIXES = (".csv", ".csv.gz", ".parquet")


def read_batches(path: Path, columns: Mapping[str, Kind]) -> Iterator[Any]:
    """Record batches of some columns of a file.

    Args:
        path: CSV file with a header, or parquet file.
        columns: Kind of each column by its name.

    Raises:
        DataError: When the file is missing, empty, cut or of another format, or lacks a column.
        TaskError: When pyarrow is not installed.
    """
    if not path.is_file():
        raise DataError(f"{path} is no file; give the folder that holds it as `data_root`")
    with _readable(path):
        rows = 0
        for batch in _parquet(path, columns) if path.suffix == ".parquet" else _csv(path, columns):
            rows += batch.num_rows
            yield batch
    if not rows:
        raise DataError(f"{path} has no rows; at least one is needed")


def table_files(folder: Path, name: str) -> tuple[Path, ...]:
    """The files of a table: one file, or all parts in a folder of that name and its folders, by name.

    Args:
        folder: Folder of the data set.
        name: Name of a file or of a folder of parts.

    Raises:
        DataError: When there is none.
    """
    path = folder / name
    if path.is_file():
        return (path,)
    parts = tuple(sorted(part for part in path.rglob("*") if part.name.endswith(SUFFIXES)))
    if not parts:
        raise DataError(f"{path} is neither a file nor a folder with {', '.join(SUFFIXES)} files")
    return parts


def _csv(path: Path, columns: Mapping[str, Kind]) -> Iterator[Any]:
    csv, kinds = arrow("csv"), {"text": arrow().string(), "number": arrow().float64()}
    reading = csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)
    with csv.open_csv(path, read_options=reading) as reader:
        _check_columns(path, columns, reader.schema.names)
    converting = csv.ConvertOptions(
        include_columns=list(columns), column_types={name: kinds[kind] for name, kind in columns.items()}
    )
    with csv.open_csv(path, read_options=reading, convert_options=converting) as reader:
        yield from reader


def _parquet(path: Path, columns: Mapping[str, Kind]) -> Iterator[Any]:
    with arrow("parquet").ParquetFile(path) as file:
        _check_columns(path, columns, file.schema_arrow.names)
        yield from file.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns), use_threads=False)


def _check_columns(path: Path, columns: Mapping[str, Kind], there: list[str]) -> None:
    missing = [name for name in columns if name not in there]
    if missing:
        shown = ", ".join(there[:20]) + (", ..." if len(there) > 20 else "")
        raise DataError(f"{path} lacks the column {missing[0]!r}; its columns are {shown}")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (arrow().ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is empty, cut or damaged: {one_line(error)}; give the whole file") from error
