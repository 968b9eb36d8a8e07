"""The loaders of the built-in tasks on small files of the official layouts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.event_files import write_age, write_alfa, write_credit, write_journey

from petra_optuna.errors import DataError
from petra_optuna.models import EventEncoder
from petra_optuna.nn.counting import count_parameters
from petra_optuna.nn.inputs import forward
from petra_optuna.tasks import build_task
from petra_optuna.tasks.events import age_group, alfa_battle, completejourney, credit_default
from petra_optuna.tasks.events.parts import TRAIN, UNLABELLED
from petra_optuna.tasks.events.store import EventStore, open_store
from petra_optuna.tasks.events.task import build_model, described

LAYOUTS: dict[str, tuple[ModuleType, Callable[[Path], Path]]] = {
    "age_group": (age_group, write_age),
    "alfa_battle": (alfa_battle, write_alfa),
    "completejourney": (completejourney, write_journey),
    "credit_default": (credit_default, write_credit),
}


def _store(name: str, folder: Path) -> EventStore:
    module, write = LAYOUTS[name]
    source = module.source(write(folder / "data"))
    return open_store(source, folder / "cache")


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_task_is_built_of_the_files_and_a_checkpoint(
    name: str, nested: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, write = LAYOUTS[name]
    monkeypatch.setattr(module, "COLES", dataclasses.replace(module.COLES, hidden=8, embedding=None))
    root = tmp_path / "data"
    write(root / name if nested else root)
    store = open_store(module.source(root), tmp_path / "cache")
    make = functools.partial(build_model, store.embeddings, len(store.schema.numbers), module.COLES)
    model = make()
    save_file(model.state_dict(), tmp_path / "encoder.safetensors")
    task = build_task(
        name, data_root=root, checkpoint=tmp_path / "encoder.safetensors", cache_dir=tmp_path / "cache"
    )
    assert torch.equal(forward(task.model, task.example), forward(model.eval(), task.example))
    assert task.labels == store.labels
    assert task.metric.name == module.COLES.quality
    assert len(task.train) == int(np.isin(store.parts, (TRAIN, UNLABELLED)).sum())
    described_columns = [column["name"] for column in task.preprocess["categories"]]
    assert described_columns == [category.name for category in store.schema.categories]
    save_file({"other": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(
        DataError, match=r"other.safetensors is not a safetensors state_dict of EventEncoder with"
    ):
        build_task(
            name, data_root=root, checkpoint=tmp_path / "other.safetensors", cache_dir=tmp_path / "cache"
        )


@pytest.mark.parametrize(
    ("name", "weights"),
    [("age_group", 2_020_802), ("alfa_battle", 3_482_224)],
)
def test_the_encoders_have_the_published_sizes(name: str, weights: int, tmp_path: Path) -> None:
    """Counted by hand from the published table of embeddings, and those of the batch norm."""
    store = _store(name, tmp_path)
    with torch.device("meta"):
        model = build_model(store.embeddings, len(store.schema.numbers), LAYOUTS[name][0].COLES)
    assert count_parameters(model) == weights


def test_clients_of_the_second_file_of_age_group_train_without_a_class(tmp_path: Path) -> None:
    store = _store("age_group", tmp_path)
    assert len(store.clients) == 24
    assert {name for name, part in zip(store.clients, store.parts, strict=True) if part == UNLABELLED} == {
        str(33172 + client) for client in range(18, 24)
    }
    assert store.labels == ("0", "1", "2", "3")
    (tmp_path / "data" / "transactions_test.csv").unlink()
    assert len(open_store(age_group.source(tmp_path / "data"), tmp_path / "cache").clients) == 18


def test_parts_of_alfa_battle_are_joined_and_a_cut_one_is_named(tmp_path: Path) -> None:
    store = _store("alfa_battle", tmp_path)
    assert sorted(store.clients.tolist(), key=int) == [str(client) for client in range(20)]
    assert store.labels == ("0", "1")
    part = sorted((tmp_path / "data" / "train_transactions_contest").iterdir())[1]
    part.write_bytes(part.read_bytes()[:-50])
    with pytest.raises(DataError, match=f"{part.name} is empty, cut or damaged"):
        open_store(alfa_battle.source(tmp_path / "data"), tmp_path / "cache")


def test_months_of_credit_default_go_from_april_to_september(tmp_path: Path) -> None:
    store = _store("credit_default", tmp_path)
    row = store.clients.tolist().index("7")
    own = slice(*store.offsets[row : row + 2].tolist())
    assert np.expm1(store.numbers[own, 0]).round().tolist() == [76, 75, 74, 73, 72, 71]
    assert np.expm1(store.numbers[own, 1]).round().tolist() == [13, 12, 11, 10, 9, 8]
    np.testing.assert_allclose(store.numbers[own, 2], np.arange(76, 70, -1) / 1000)
    if store.parts[row] == TRAIN:
        values = [store.vocabularies[0][number - 2] for number in store.categories[own, 0]]
        assert values == ["6", "5", "4", "3", "2", "0"]


def test_purchases_of_households_have_times_and_empty_fields(tmp_path: Path) -> None:
    store = _store("completejourney", tmp_path)
    assert store.labels == ("19-24", "65+")
    assert store.vocabularies[0] == ("GROCERY",)
    own = slice(*store.offsets[:2].tolist())
    assert store.categories[own, 0].tolist() == [1, 2, 1, 2][: store.lengths[0]]
    assert (np.diff(store.numbers[own, 1]) > 0).all()


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_missing_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{name} brings no data; give a `data_root` with"):
        build_task(name, cache_dir=tmp_path)
    with pytest.raises(DataError, match=f"no .* in {tmp_path}, nor in its folder {name}"):
        build_task(name, data_root=tmp_path, cache_dir=tmp_path)
    module, write = LAYOUTS[name]
    root = write(tmp_path / "data")
    targets = root / getattr(module, "TARGETS", "UCI_Credit_Card.csv")
    targets.unlink()
    with pytest.raises(DataError, match=f"{targets.name}"):
        build_task(name, data_root=root, cache_dir=tmp_path)


def test_an_encoder_is_told_by_its_sizes(tmp_path: Path) -> None:
    text = described(_store("age_group", tmp_path), age_group.COLES)
    assert text == "EventEncoder with 2 categories and 1 numbers, gru of 800, embedding 800"
    assert isinstance(build_model(((3, 1),), 1, age_group.COLES), EventEncoder)
