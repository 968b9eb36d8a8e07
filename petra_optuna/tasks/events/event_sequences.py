"""Event sequences of one's own: any tables of events and targets, told by a small ``schema.json``.

::

    {"events": "purchases.csv", "targets": "clients.csv", "target": "label",
     "client": "client", "time": "day",
     "categories": {"shop": {"width": 8}, "currency": {"width": 2, "rows": 20}},
     "numbers": {"amount": {"transform": "log"}, "age": {}},
     "slices": {"count": 5, "shortest": 10, "longest": 50},
     "encoder": {"cell": "gru", "hidden": 128, "embedding": 64},
     "training": {"epochs": 20, "batch_size": 64, "peak_lr": 0.002},
     "quality": "auc"}

``events`` and ``targets`` name a CSV or parquet file, or ``events`` a folder of such parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from petra_optuna.errors import DataError
from petra_optuna.models.event_encoder import Cell
from petra_optuna.tasks.classification import BaseRecipe
from petra_optuna.tasks.events.downstream import Classifier, Quality
from petra_optuna.tasks.events.files import table_files
from petra_optuna.tasks.events.schema import LONGEST, Category, EventSchema, Number
from petra_optuna.tasks.events.store import EventSource
from petra_optuna.tasks.events.tables import data_folder, table_source
from petra_optuna.tasks.events.task import Coles, event_task
from petra_optuna.tasks.json_file import read_json
from petra_optuna.tasks.task import Task

FILE = "schema.json"
REQUIRED = ("events", "targets", "target", "client", "time", "slices")
OPTIONAL = ("categories", "numbers", "longest", "encoder", "training", "quality")
SLICES = ("count", "shortest", "longest")


@dataclasses.dataclass(frozen=True)
class Described:
    """What a ``schema.json`` says.

    Attributes:
        source: Where events and targets come from.
        coles: How the encoder is built, trained and judged.
    """

    source: EventSource
    coles: Coles


def build(
    *, data_root: Path | None = None, checkpoint: Path | None = None, cache_dir: Path, seed: int = 0
) -> Task:
    """Event sequences of one's own, an encoder trained by CoLES; needs ``tables``.

    Args:
        data_root: A folder with ``schema.json``, see this module, and the tables that it names.
        checkpoint: safetensors with the state_dict of the encoder. When None it is trained and kept.
        cache_dir: Folder of the stored events and of the encoder.
        seed: Seed of the encoder's training.

    Raises:
        DataError: When schema, tables or checkpoint are missing, damaged or of another layout.
        TaskError: When pyarrow is not installed.
    """
    described = read_schema(data_folder("event_sequences", data_root, FILE) / FILE)
    return event_task(
        described.source, described.coles, checkpoint=checkpoint, cache_dir=cache_dir, seed=seed
    )


def read_schema(path: Path) -> Described:
    """Read a ``schema.json``.

    Args:
        path: The file; tables lie in its folder.

    Raises:
        DataError: When it is no JSON, lacks a key, has an unknown one or a value of the wrong kind.
    """
    given = read_json(path)
    top = _keys(path, "the schema", given, REQUIRED, OPTIONAL)
    if not all(isinstance(top[name], str) for name in ("events", "targets", "target", "client", "time")):
        raise DataError(f"events, targets, target, client and time of {path} must be texts")
    schema = EventSchema(
        top["client"],
        top["time"],
        tuple(
            Category(name, **_integers(path, f"category {name!r}", values, ("width",), ("rows",)))
            for name, values in _named(path, "categories", top.get("categories", {}))
        ),
        tuple(
            Number(name, **_keys(path, f"number {name!r}", values, (), ("transform",)))
            for name, values in _named(path, "numbers", top.get("numbers", {}))
        ),
        **_integers(path, "the schema", {"longest": top.get("longest", LONGEST)}, ("longest",)),
    )
    folder = path.parent
    source = table_source(
        "event_sequences",
        table_files(folder, top["events"]),
        folder / top["targets"],
        schema,
        top["target"],
    )
    return Described(source, _coles(path, top))


def _coles(path: Path, top: Mapping[str, Any]) -> Coles:
    slices = _integers(path, "slices", top["slices"], SLICES)
    if not 1 <= slices["shortest"] <= slices["longest"] or slices["count"] < 2:
        raise DataError(f"slices of {path} need a count of at least 2 and 1 <= shortest <= longest")
    encoder = _keys(path, "encoder", top.get("encoder", {}), (), ("cell", "hidden", "embedding"))
    cell = encoder.pop("cell", "gru")
    sizes = {"hidden": 128, "embedding": 64} | _integers(
        path, "encoder", encoder, (), ("hidden", "embedding")
    )
    training = _keys(path, "training", top.get("training", {}), (), ("epochs", "batch_size", "peak_lr"))
    rate = training.pop("peak_lr", 2e-3)
    counts = _integers(path, "training", training, (), ("epochs", "batch_size"))
    quality = top.get("quality", "auc")
    for name, value, choices in (("cell", cell, get_args(Cell)), ("quality", quality, get_args(Quality))):
        if value not in choices:
            raise DataError(f"{name} of {path} must be {' or '.join(choices)}, got {value!r}")
    if not isinstance(rate, int | float) or not 0 < rate < 1:
        raise DataError(f"peak_lr of {path} must be between 0 and 1, got {rate!r}")
    return Coles(
        cell=cell,
        hidden=sizes["hidden"],
        embedding=sizes["embedding"],
        slices=slices["count"],
        shortest=slices["shortest"],
        longest=slices["longest"],
        recipe=BaseRecipe(
            epochs=counts.get("epochs", 20),
            batch_size=counts.get("batch_size", 64),
            peak_lr=float(rate),
            optimizer="adamw",
        ),
        quality=quality,
        classifier=Classifier(),
    )


def _keys(
    path: Path, what: str, given: Any, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A JSON object with these keys."""
    if not isinstance(given, dict):
        raise DataError(f"{what} of {path} must be an object {{...}}, got {given!r}")
    for name in required:
        if name not in given:
            raise DataError(f"{what} of {path} lacks {name!r}; see docs/tasks.md")
    for name in given:
        if name not in (*required, *optional):
            choices = ", ".join((*required, *optional))
            raise DataError(f"{what} of {path} has the unknown key {name!r}; there may be {choices}")
    return dict(given)


def _integers(
    path: Path, what: str, given: Any, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, int]:
    values = _keys(path, what, given, required, optional)
    for name, value in values.items():
        if type(value) is not int or value < 1:
            raise DataError(f"{name} of {what} in {path} must be a whole number of at least 1, got {value!r}")
    return values


def _named(path: Path, what: str, given: Any) -> list[tuple[str, Any]]:
    if not isinstance(given, dict):
        raise DataError(f"{what} of {path} must be an object of columns, got {given!r}")
    return list(given.items())
