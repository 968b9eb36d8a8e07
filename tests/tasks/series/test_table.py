from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from petra_optuna.errors import DataError, TaskError
from petra_optuna.tasks.series.table import read_series

ROWS = ["2016-01-11 17:00:00,1.5,a", "2016-01-11T17:10:00+00:00,2,b", "2016-01-11 17:20:00, 3 ,a"]


def _csv(folder: Path, *rows: str, header: str = "date,load,state") -> Path:
    path = folder / "data.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_dates_become_seconds_and_columns_keep_their_names(tmp_path: Path) -> None:
    table = read_series(_csv(tmp_path, *ROWS), "date", texts=["state"])
    assert np.diff(table.times).tolist() == [600.0, 600.0]
    assert table.step == 600
    assert {name: column.tolist() for name, column in table.numbers.items()} == {"load": [1.5, 2.0, 3.0]}
    assert table.texts == {"state": ["a", "b", "a"]}
    assert not table.holes.any()


def test_numbers_are_times_too_and_a_hole_is_seen(tmp_path: Path) -> None:
    path = _csv(tmp_path, *(f"{time},{time},x" for time in (0, 1, 2, 4, 5)))
    table = read_series(path, "date", ["load"])
    assert table.holes.tolist() == [0, 0, 1, 0]
    assert table.channels(["load", "load"]).shape == (5, 2)


BAD = {
    "empty": ("", "is empty; expected a header and rows"),
    "header alone": ("date,load\n", "has 0 rows; a series needs 2 or more"),
    "no time": ("when,load\n1,1\n2,2\n", "has no column 'date'; it has when, load"),
    "two of a name": ("date,load,load\n1,1,1\n", "has two columns 'load'; rename one"),
    "cut": ("date,load\n1,1\n2\n", r"data.csv:3 has 1 cells, the header 2; the file may be cut"),
    "a text": ("date,load\n1,1\n2,much\n", "column 'load' has 'much' in row 2, not a finite number"),
    "no value": ("date,load\n1,\n2,2\n", "column 'load' has '' in row 1, not a finite number; fill it"),
    "nan": ("date,load\n1,1\n2,nan\n", "column 'load' has 'nan' in row 2, not a finite number"),
    "infinite": ("date,load\n1,1\n2,inf\n", "column 'load' has 'inf' in row 2, not a finite number"),
    "unsorted": ("date,load\n1,1\n3,2\n2,3\n", "time '3' of row 2 is after that of the next row; sort"),
    "twice": ("date,load\n1,1\n2,2\n2,3\n", "time '2' of row 2 is there twice; sort the rows by 'date'"),
    "no date": ("date,load\nmonday,1\n2,2\n", "column 'date' has 'monday' in row 1, neither a number nor"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, case: str) -> None:
    text, message = BAD[case]
    path = tmp_path / "data.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_series(path, "date")
    assert "\n" not in str(error.value)


def test_a_missing_file_a_missing_column_and_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.csv does not exist; give the path of a CSV or parquet file"):
        read_series(tmp_path / "none.csv", "date")
    with pytest.raises(DataError, match="has no column 'heat'; it has date, load, state"):
        read_series(_csv(tmp_path, *ROWS), "date", ["load", "heat"])
    (tmp_path / "bytes.csv").write_bytes(b"date,load\n\xff\xfe,1\n")
    with pytest.raises(DataError, match=r"bytes.csv is not a readable CSV file in UTF-8"):
        read_series(tmp_path / "bytes.csv", "date")


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = read_series(_csv(tmp_path, *ROWS), "date", texts=["state"])
    columns = {
        "date": pyarrow.array(np.array(table.times * 1e6, dtype="datetime64[us]")),
        "load": pyarrow.array(table.numbers["load"]),
        "state": pyarrow.array(table.texts["state"]),
    }
    whole = pyarrow.table(columns)
    parquet.write_table(whole, tmp_path / "data.parquet")
    (tmp_path / "parts").mkdir()
    parquet.write_table(whole.slice(0, 1), tmp_path / "parts" / "0.parquet")
    parquet.write_table(whole.slice(1), tmp_path / "parts" / "1.parquet")
    for path in (tmp_path / "data.parquet", tmp_path / "parts"):
        read = read_series(path, "date", texts=["state"])
        np.testing.assert_array_equal(read.times, table.times)
        np.testing.assert_array_equal(read.numbers["load"], table.numbers["load"])
        assert read.texts == table.texts
    cut = (tmp_path / "parts" / "1.parquet").read_bytes()
    (tmp_path / "parts" / "1.parquet").write_bytes(cut[: len(cut) // 2])
    with pytest.raises(DataError, match=r"1.parquet is not a readable parquet file"):
        read_series(tmp_path / "parts", "date")
    columns["load"] = pyarrow.array([1.0, None, 2.0])
    parquet.write_table(pyarrow.table(columns), tmp_path / "null.parquet")
    with pytest.raises(DataError, match="column 'load' has 'nan' in row 2, not a finite number"):
        read_series(tmp_path / "null.parquet", "date", ["load"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no \*.parquet file"):
        read_series(tmp_path / "empty", "date")


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "data.parquet").write_bytes(b"")
    with pytest.raises(TaskError, match=r"pip install petra-optuna\[tables\]"):
        read_series(tmp_path / "data.parquet", "date")
