from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.event_files import write_csv

from petra_optuna.errors import DataError
from petra_optuna.models.event_encoder import UNKNOWN
from petra_optuna.tasks.events import gather as gathering
from petra_optuna.tasks.events import store as storing
from petra_optuna.tasks.events.parts import NO_CLASS, SELECTION, TEST, TRAIN, UNLABELLED
from petra_optuna.tasks.events.schema import Category, EventSchema, Number
from petra_optuna.tasks.events.store import EventSource, EventStore, open_store
from petra_optuna.tasks.events.tables import table_source

CLIENTS = 20
SCHEMA = EventSchema("client", "day", (Category("shop", 2),), (Number("amount", "log"),))


def _columns() -> dict[str, list[Any]]:
    """Three events of each client in a shuffled order, of which two are of one day."""
    rows = [(f"c{client}", day, f"shop{client % 5}") for client in range(CLIENTS) for day in (2, 1, 2)]
    order = np.random.default_rng(0).permutation(len(rows))
    client, day, shop = (list(column) for column in zip(*(rows[row] for row in order), strict=True))
    return {"client": client, "day": day, "shop": shop, "amount": order.tolist()}


def _targets() -> dict[str, list[Any]]:
    return {
        "client": [f"c{client}" for client in range(CLIENTS - 4)],
        "label": [client % 2 for client in range(CLIENTS - 4)],
    }


def _source(folder: Path, schema: EventSchema = SCHEMA, **changes: Any) -> EventSource:
    write_csv(folder / "events.csv", {**_columns(), **changes})
    write_csv(folder / "targets.csv", _targets())
    return table_source("small", (folder / "events.csv",), folder / "targets.csv", schema, "label")


def _events(store: EventStore, client: str) -> list[tuple[int, int]]:
    """Shop and amount of each event of a client, as it was in the file."""
    row = store.clients.tolist().index(client)
    own = slice(*store.offsets[row : row + 2].tolist())
    amounts = np.expm1(store.numbers[own, 0]).round().astype(int).tolist()
    return list(zip(store.categories[own, 0].tolist(), amounts, strict=True))


def test_events_lie_by_client_and_time_and_those_of_one_time_as_in_the_file(tmp_path: Path) -> None:
    columns, store = _columns(), open_store(_source(tmp_path), tmp_path / "cache")
    rows = list(zip(*columns.values(), strict=True))
    for number in range(CLIENTS):
        client = f"c{number}"
        expected = sorted(
            ((day, amount) for own, day, _, amount in rows if own == client), key=lambda row: row[0]
        )
        assert [amount for _, amount in _events(store, client)] == [amount for _, amount in expected]


def test_equal_events_are_all_kept(tmp_path: Path) -> None:
    columns = {name: values * 2 for name, values in _columns().items()}
    store = open_store(_source(tmp_path, **columns), tmp_path / "cache")
    assert store.lengths.tolist() == [6] * CLIENTS


def test_numbers_mean_the_values_of_the_vocabulary_and_new_values_are_unknown(tmp_path: Path) -> None:
    store = open_store(_source(tmp_path), tmp_path / "cache")
    held = [name for name, part in zip(store.clients, store.parts, strict=True) if part in (SELECTION, TEST)]
    columns = _columns()
    for row, client in enumerate(columns["client"]):
        if client in held:
            columns["shop"][row] = "elsewhere" if row % 2 else ""
    again = open_store(_source(tmp_path, shop=columns["shop"]), tmp_path / "cache")
    assert "elsewhere" not in again.vocabularies[0]
    for client in store.clients.tolist():
        numbers = {number for number, _ in _events(again, client)}
        own = f"shop{int(client[1:]) % 5}"
        assert numbers == ({UNKNOWN} if client in held else {2 + again.vocabularies[0].index(own)})


def test_the_vocabulary_holds_the_most_frequent_values_as_far_as_there_are_rows(tmp_path: Path) -> None:
    columns = _columns()
    columns["shop"] = [
        "rare" if row == 7 else f"shop{row % 2 * row % 3}" for row in range(len(columns["day"]))
    ]
    schema = EventSchema("client", "day", (Category("shop", 2, rows=4),))
    store = open_store(_source(tmp_path, schema, shop=columns["shop"]), tmp_path / "cache")
    shops = collections.Counter(
        shop
        for shop, client in zip(columns["shop"], columns["client"], strict=True)
        if store.parts[store.clients.tolist().index(client)] in (TRAIN, UNLABELLED)
    )
    assert list(store.vocabularies[0]) == sorted(shops, key=lambda shop: (-shops[shop], shop))[:2]
    assert store.embeddings == ((4, 2),)
    assert set(np.unique(store.categories)) <= {UNKNOWN, 2, 3}


def test_of_each_class_a_fifth_is_selection_and_a_fifth_test_whatever_the_order(tmp_path: Path) -> None:
    store = open_store(_source(tmp_path), tmp_path / "cache")
    parts = dict(zip(store.clients.tolist(), store.parts.tolist(), strict=True))
    for label in (0, 1):
        counts = collections.Counter(parts[f"c{client}"] for client in range(label, CLIENTS - 4, 2))
        assert counts == {TEST: 2, SELECTION: 2, TRAIN: 4}
    assert all(parts[f"c{client}"] == UNLABELLED for client in range(CLIENTS - 4, CLIENTS))
    assert sorted(store.targets.tolist()) == [NO_CLASS] * 4 + [0] * 8 + [1] * 8
    backwards = {name: values[::-1] for name, values in _columns().items()}
    other = open_store(_source(tmp_path / "other", **backwards), tmp_path / "cache")
    assert dict(zip(other.clients.tolist(), other.parts.tolist(), strict=True)) == parts


def test_events_are_read_once_and_again_when_file_schema_or_store_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reads = []
    monkeypatch.setattr(
        storing,
        "gather",
        lambda *given: reads.append(1) or gathering.gather(*given),  # type: ignore[func-returns-value]
    )
    source, cache = _source(tmp_path), tmp_path / "cache"
    first = open_store(source, cache)
    assert open_store(source, cache).facts == first.facts
    assert len(reads) == 1
    open_store(_source(tmp_path, EventSchema("client", "day", (), (Number("amount"),))), cache)
    assert len(reads) == 2
    open_store(_source(tmp_path, amount=[1.0] * 3 * CLIENTS), cache)
    assert len(reads) == 3
    source = _source(tmp_path / "new")
    kept = open_store(source, cache)
    (kept.folder / "numbers.npy").write_bytes((kept.folder / "numbers.npy").read_bytes()[:100])
    assert open_store(source, cache).facts == kept.facts
    assert "is damaged" in caplog.text
    assert len(reads) == 5


def test_times_may_be_dates(tmp_path: Path) -> None:
    numbers = open_store(_source(tmp_path), tmp_path / "cache")
    days = [f"2017-01-{day:02}" for day in _columns()["day"]]
    for dates in (days, [f"{day} 18:55:24" for day in days]):
        store = open_store(_source(tmp_path, day=dates), tmp_path / "cache")
        assert store.facts["sha256"] == numbers.facts["sha256"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"day": ["soon"] * 60}, "column 'day' of .*events.csv holds neither numbers nor ISO times .*'soon'"),
        ({"day": ["1"] * 59 + ["soon"]}, "holds neither numbers nor ISO times"),
        ({"day": ["1"] * 59 + [""]}, r"row 60 of .*events.csv has no time in column 'day'|holds neither"),
        ({"day": ["1"] * 59 + ["nan"]}, "row 60 of .*events.csv has no time in column 'day'; mend the row"),
        (
            {"amount": [1.0] * 9 + ["nan"] + [1.0] * 50},
            "row 10 of .* has no finite number in column 'amount'",
        ),
        ({"amount": [1.0] * 59 + [""]}, "row 60 of .* has no finite number in column 'amount'"),
        ({"amount": [1.0] * 59 + ["inf"]}, "row 60 of .* has no finite number"),
        ({"amount": [1.0] * 59 + ["much"]}, "events.csv is empty, cut or damaged: .*much"),
        ({"client": ["c0"] * 59 + [""]}, "row 60 of .* has no client in column 'client'"),
    ],
)
def test_what_is_no_event_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_store(_source(tmp_path, **changes), tmp_path / "cache")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [("c0", 1), ("c99", 0)],
            r"1 clients of .*targets.csv have no events, 'c99' is one; give their events",
        ),
        ([(f"c{row}", 1) for row in range(9)], "targets.csv has the one class '1'; at least 2 are needed"),
        ([("c0", 1), ("c1", 0), ("c0", 1)], "targets.csv names client 'c0' twice"),
        ([("c0", 1), ("c1", "")], "row 2 of .*targets.csv lacks 'client' or 'label'"),
        (
            [(f"c{row}", row < 2) for row in range(9)],
            "class 'True' of .*targets.csv has 2 clients; at least 3",
        ),
        ([], "targets.csv has no rows"),
    ],
)
def test_targets_that_fit_no_events_are_one_line(
    tmp_path: Path, rows: list[tuple[str, Any]], message: str
) -> None:
    source = _source(tmp_path)
    columns = {"client": [client for client, _ in rows], "label": [label for _, label in rows]}
    write_csv(tmp_path / "targets.csv", columns)
    with pytest.raises(DataError, match=message):
        open_store(source, tmp_path / "cache")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"cannot write to .*give another `cache_dir`"):
        open_store(_source(tmp_path), tmp_path / "cache")
