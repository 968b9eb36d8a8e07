from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from support.event_files import write_csv

from petra_optuna.errors import DataError
from petra_optuna.tasks.arrow import arrow
from petra_optuna.tasks.events.files import Kind, read_batches, table_files

COLUMNS: dict[str, Kind] = {"client": "text", "amount": "number"}


def _table(path: Path) -> Path:
    return write_csv(path, {"amount": [1.5, 2.5], "client": ["007", "8"], "other": ["x", "y"]})


def _parquet(path: Path, rows: int = 5000) -> Path:
    table = arrow().table({"client": list(range(rows)), "amount": [0.5] * rows})
    arrow("parquet").write_table(table, path, row_group_size=1000)
    return path


def test_texts_stay_texts_and_columns_may_be_in_any_order(tmp_path: Path) -> None:
    (batch,) = read_batches(_table(tmp_path / "table.csv"), COLUMNS)
    assert batch.to_pydict() == {"client": ["007", "8"], "amount": [1.5, 2.5]}
    with gzip.open(tmp_path / "table.csv.gz", "wb") as file:
        file.write((tmp_path / "table.csv").read_bytes())
    (zipped,) = read_batches(tmp_path / "table.csv.gz", COLUMNS)
    assert zipped.equals(batch)


def test_parquet_is_read_in_parts(tmp_path: Path) -> None:
    batches = list(read_batches(_parquet(tmp_path / "table.parquet"), COLUMNS))
    assert [row for batch in batches for row in batch.column("client").to_pylist()] == list(range(5000))


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_missing_column_and_a_missing_file_are_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(DataError, match=f"{name} is no file; give the folder"):
        list(read_batches(path, COLUMNS))
    (_table if name.endswith("csv") else _parquet)(path)
    with pytest.raises(DataError, match=f"{name} lacks the column 'day'; its columns are .*client"):
        list(read_batches(path, {**COLUMNS, "day": "text"}))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_cut_parquet_part_is_one_line(tmp_path: Path, share: float) -> None:
    path = _parquet(tmp_path / "part_000.parquet")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(
        DataError, match=r"part_000.parquet is empty, cut or damaged: .*; give the whole"
    ) as caught:
        list(read_batches(path, COLUMNS))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty, cut or damaged"),
        ("client,amount\n", "has no rows"),
        ("client,amount\n1,2\n3\n", "is empty, cut or damaged: .*Expected 2 columns, got 1"),
        ("client,amount\n1,much\n", "is empty, cut or damaged: .*much"),
    ],
)
def test_a_damaged_csv_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(DataError, match=f"table.csv {message}"):
        list(read_batches(tmp_path / "table.csv", COLUMNS))


def test_a_table_is_a_file_or_the_parts_of_a_folder(tmp_path: Path) -> None:
    single = _table(tmp_path / "single.csv")
    assert table_files(tmp_path, "single.csv") == (single,)
    parts = [_table(tmp_path / "parts" / name / "part.csv") for name in ("b", "a")]
    (tmp_path / "parts" / "readme.txt").write_text("no part")
    assert table_files(tmp_path, "parts") == (parts[1], parts[0])
    with pytest.raises(
        DataError, match=r"nothing is neither a file nor a folder with .csv, .csv.gz, .parquet"
    ):
        table_files(tmp_path, "nothing")
