from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from support.event_files import write_csv

from petra_optuna.nn.inputs import Inputs
from petra_optuna.tasks.events.dataset import (
    CLASS,
    CLIENT,
    FITTED,
    ROLE,
    ClientEvents,
    dynamic_axes,
    measured_first,
    sliced,
)
from petra_optuna.tasks.events.schema import Category, EventSchema, Number
from petra_optuna.tasks.events.store import EventStore, open_store
from petra_optuna.tasks.events.tables import table_source

LENGTHS = [3, 1, 5, 2, 9, 4, 4, 6]


def _store(folder: Path, longest: int = 100) -> EventStore:
    """Clients of several lengths, whose amounts are ten times the client and the place of the event."""
    rows = [(client, place) for client, length in enumerate(LENGTHS) for place in range(length)]
    write_csv(
        folder / "events.csv",
        {
            "client": [client for client, _ in rows],
            "day": [place for _, place in rows],
            "shop": [f"s{place % 3}" for _, place in rows],
            "amount": [10 * client + place for client, place in rows],
        },
    )
    write_csv(
        folder / "targets.csv", {"client": list(range(8)), "label": [client % 2 for client in range(8)]}
    )
    schema = EventSchema("client", "day", (Category("shop", 2),), (Number("amount"),), longest)
    source = table_source("small", (folder / "events.csv",), folder / "targets.csv", schema, "label")
    return open_store(source, folder / "cache")


def _dataset(store: EventStore) -> ClientEvents:
    return ClientEvents(store, np.arange(8), np.full(8, FITTED))


def _amounts(inputs: Inputs) -> list[list[int]]:
    assert isinstance(inputs, dict)
    pairs = zip(inputs["numbers"][:, :, 0].int().tolist(), inputs["lengths"].tolist(), strict=True)
    return [amounts[:length] for amounts, length in pairs]


def test_a_batch_holds_each_clients_events_and_zeros_behind(tmp_path: Path) -> None:
    inputs, targets = _dataset(_store(tmp_path)).__getitems__([4, 1, 0])
    assert {name: (tuple(part.shape), part.dtype) for name, part in inputs.items()} == {
        "categories": ((3, 9, 1), torch.int64),
        "numbers": ((3, 9, 1), torch.float32),
        "lengths": ((3,), torch.int64),
    }
    assert _amounts(inputs) == [list(range(40, 49)), [10], [0, 1, 2]]
    for row, length in enumerate((9, 1, 3)):
        assert (inputs["categories"][row, :length] > 0).all()
        assert not inputs["categories"][row, length:].any()
        assert not inputs["numbers"][row, length:].any()
    assert targets[:, CLASS].tolist() == [0, 1, 0]
    assert targets[:, ROLE].tolist() == [FITTED] * 3
    assert targets[:, CLIENT].tolist() == [4, 1, 0]


def test_of_a_long_sequence_the_last_events_are_read(tmp_path: Path) -> None:
    inputs, _ = _dataset(_store(tmp_path, longest=2)).__getitems__(range(8))
    expected = [
        [10 * client + place for place in range(length)][-2:] for client, length in enumerate(LENGTHS)
    ]
    assert _amounts(inputs) == expected


def test_the_fingerprint_follows_what_can_be_read(tmp_path: Path) -> None:
    store = _store(tmp_path)
    same, roles = _dataset(store), np.full(8, FITTED)
    others = [
        ClientEvents(store, np.arange(7), roles[:7]),
        ClientEvents(store, np.arange(8), 1 - roles),
        ClientEvents(store, np.arange(8), roles, np.zeros(8, dtype=int), np.ones(8, dtype=int)),
        _dataset(_store(tmp_path / "cut", longest=2)),
    ]
    prints = [dataset.fingerprint() for dataset in (same, *others)]
    assert len(set(prints)) == len(prints)
    assert _dataset(_store(tmp_path)).fingerprint() == prints[0]


def test_slices_are_runs_of_their_clients_side_by_side(tmp_path: Path) -> None:
    inputs, _ = _dataset(_store(tmp_path)).__getitems__(range(8))
    slices = sliced(inputs, torch.Generator().manual_seed(0), count=3, shortest=2, longest=4)
    assert set(slices) == set(inputs)
    for row, amounts in enumerate(_amounts(slices)):
        client, length = row // 3, LENGTHS[row // 3]
        assert min(2, length) <= len(amounts) <= min(4, length)
        assert amounts == list(range(amounts[0], amounts[0] + len(amounts)))
        assert {amount // 10 for amount in amounts} == {client}
    is_event = torch.arange(slices["numbers"].shape[1]) < slices["lengths"].unsqueeze(1)
    assert not slices["categories"][~is_event].any()
    assert not slices["numbers"][~is_event].any()
    assert (slices["categories"][is_event] > 0).all()
    again = sliced(inputs, torch.Generator().manual_seed(0), count=3, shortest=2, longest=4)
    assert all(torch.equal(again[name], part) for name, part in slices.items())


def test_positional_inputs_have_no_slices() -> None:
    with pytest.raises(TypeError, match="keyword inputs"):
        functools.partial(sliced, count=1, shortest=1, longest=1)((torch.ones(1),), torch.Generator())


def test_the_first_rows_have_the_90th_percentile_of_the_lengths() -> None:
    lengths = np.random.default_rng(0).permutation(np.arange(1, 101))
    order = measured_first(lengths)
    assert sorted(order.tolist()) == list(range(100))
    assert set(lengths[order[:8]]) <= set(range(86, 96))
    rest = lengths[order[8:]]
    assert (np.diff(rest) > 0).all()
    assert measured_first(np.array([5, 5, 5])).tolist() == [0, 1, 2]


def test_the_time_axis_is_that_of_the_inputs_that_have_one(tmp_path: Path) -> None:
    assert dynamic_axes(_store(tmp_path)) == {"categories": {1: "time"}, "numbers": {1: "time"}}
