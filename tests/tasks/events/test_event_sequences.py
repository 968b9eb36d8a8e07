from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.event_files import SCHEMA, write_planted, write_schema

from petra_optuna.errors import DataError
from petra_optuna.tasks import build_task
from petra_optuna.tasks.arrow import arrow
from petra_optuna.tasks.events.event_sequences import read_schema
from petra_optuna.tasks.events.schema import LONGEST, Category, Number
from petra_optuna.tasks.events.store import open_store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_planted(tmp_path / "data", 12, 4)


def test_the_schema_says_columns_slices_and_sizes(root: Path) -> None:
    given = read_schema(write_schema(root, longest=7, quality="accuracy"))
    schema = given.source.schema
    assert (schema.client, schema.time, schema.longest) == ("client", "day", 7)
    assert schema.categories == (Category("shop", 4),)
    assert schema.numbers == (Number("amount", "log"),)
    coles = given.coles
    assert (coles.cell, coles.hidden, coles.embedding) == ("gru", 32, 16)
    assert (coles.slices, coles.shortest, coles.longest, coles.quality) == (5, 10, 25, "accuracy")
    assert (coles.recipe.epochs, coles.recipe.batch_size, coles.recipe.peak_lr) == (10, 32, 0.01)


def test_what_the_schema_leaves_out_has_a_default(root: Path) -> None:
    path = write_schema(root)
    path.write_text(
        '{"events": "events.csv", "targets": "targets.csv", "target": "label", "client": "client", '
        '"time": "day", "numbers": {"amount": {}}, "slices": {"count": 2, "shortest": 1, "longest": 3}}'
    )
    given = read_schema(path)
    assert given.source.schema.longest == LONGEST
    assert given.source.schema.numbers == (Number("amount", "none"),)
    assert given.coles.quality == "auc"


def test_parquet_parts_give_what_one_csv_file_gives(root: Path, tmp_path: Path) -> None:
    expected = open_store(read_schema(root / "schema.json").source, tmp_path / "cache")
    table = arrow("csv").read_csv(root / "events.csv")
    (root / "parts").mkdir()
    for part in range(3):
        arrow("parquet").write_table(table.slice(part * 15, 15), root / "parts" / f"part_{part}.parquet")
    store = open_store(read_schema(write_schema(root, events="parts")).source, tmp_path / "cache")
    assert store.facts["sha256"] == expected.facts["sha256"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slices": {"count": 5, "shortest": 9}}, "slices of .*schema.json lacks 'longest'"),
        ({"slices": {"count": 1, "shortest": 1, "longest": 2}}, "slices of .* need a count of at least 2"),
        ({"slices": {"count": 2, "shortest": 3, "longest": 2}}, "1 <= shortest <= longest"),
        ({"slices": 5}, r"slices of .* must be an object \{...\}, got 5"),
        ({"depth": 3}, "the schema of .* has the unknown key 'depth'; there may be events"),
        ({"client": 3}, "client and time of .* must be texts"),
        ({"longest": 0}, "longest of the schema in .* must be a whole number of at least 1, got 0"),
        ({"categories": {"shop": {}}}, "category 'shop' of .* lacks 'width'"),
        ({"categories": {"shop": {"width": "wide"}}}, "width of category 'shop' in .* got 'wide'"),
        (
            {"categories": {"shop": {"width": 2, "rows": 2}}},
            "category 'shop' needs a width of at least 1 and",
        ),
        ({"categories": ["shop"]}, r"categories of .* must be an object of columns, got \['shop'\]"),
        (
            {"numbers": {"amount": {"transform": "root"}}},
            "`transform` of number 'amount' must be none or log",
        ),
        ({"categories": {}, "numbers": {}}, "the schema names neither categories nor numbers"),
        ({"numbers": {"shop": {}}}, "the schema names column 'shop' twice"),
        ({"encoder": {"cell": "rnn"}}, "cell of .* must be gru or lstm, got 'rnn'"),
        ({"encoder": {"hidden": 0}}, "hidden of encoder in .* got 0"),
        ({"training": {"peak_lr": 2}}, "peak_lr of .* must be between 0 and 1, got 2"),
        ({"quality": "rmse"}, "quality of .* must be auc or accuracy, got 'rmse'"),
        ({"events": "other.csv"}, "other.csv is neither a file nor a folder"),
    ],
)
def test_a_schema_that_cannot_be_used_is_one_line(root: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_schema(write_schema(root, **changes))
    assert "\n" not in str(caught.value)


def test_a_schema_that_is_no_json_or_lacks_a_key_is_one_line(root: Path, tmp_path: Path) -> None:
    path = root / "schema.json"
    path.write_text("{")
    with pytest.raises(DataError, match=r"schema.json is not a readable JSON file"):
        read_schema(path)
    path.write_text(str({name: value for name, value in SCHEMA.items() if name != "time"}).replace("'", '"'))
    with pytest.raises(DataError, match=r"the schema of .*schema.json lacks 'time'"):
        read_schema(path)
    with pytest.raises(
        DataError, match=r"event_sequences brings no data; give a `data_root` with schema.json"
    ):
        build_task("event_sequences", cache_dir=tmp_path)
    write_schema(root, time="hour")
    with pytest.raises(
        DataError, match=r"events.csv lacks the column 'hour'; its columns are client, day, shop"
    ):
        build_task("event_sequences", data_root=root, cache_dir=tmp_path)
