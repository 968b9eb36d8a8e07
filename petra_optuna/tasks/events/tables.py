"""A source of events in tables: one event a row, targets in a table of their own."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from petra_optuna.errors import DataError
from petra_optuna.tasks.events.files import Kind, read_batches
from petra_optuna.tasks.events.parts import read_targets
from petra_optuna.tasks.events.schema import EventSchema
from petra_optuna.tasks.events.store import EventSource


def table_source(
    name: str, events: tuple[Path, ...], targets: Path, schema: EventSchema, target: str
) -> EventSource:
    """The source of such tables.

    Args:
        name: Name of the data.
        events: Files of the events, CSV or parquet.
        targets: File of the targets, CSV or parquet; it names clients as the events do.
        schema: Columns of the events.
        target: Column of the class.
    """
    described = str(events[0]) if len(events) == 1 else f"the {len(events)} files in {events[0].parent}"
    return EventSource(
        name,
        (*events, targets),
        schema,
        functools.partial(_events, events, schema),
        functools.partial(_targets, targets, schema.client, target),
        (described, str(targets)),
    )


def data_folder(name: str, data_root: Path | None, holds: str) -> Path:
    """The folder that holds a file or folder: the data root, or that of the task's name in it.

    Args:
        name: Name of the task.
        data_root: Folder that the user gave.
        holds: Name of the file or folder.

    Raises:
        DataError: When no folder was given, or neither holds it.
    """
    if data_root is None:
        raise DataError(f"{name} brings no data; give a `data_root` with {holds}")
    for folder in (data_root, data_root / name):
        if (folder / holds).exists():
            return folder
    raise DataError(f"no {holds} in {data_root}, nor in its folder {name}")


def _events(paths: tuple[Path, ...], schema: EventSchema) -> Iterator[Any]:
    numbers = {number.name for number in schema.numbers} - {schema.time}
    columns: dict[str, Kind] = {name: "number" if name in numbers else "text" for name in schema.columns}
    return itertools.chain.from_iterable(read_batches(path, columns) for path in paths)


def _targets(path: Path, client: str, target: str) -> Mapping[str, str]:
    return read_targets(read_batches(path, {client: "text", target: "text"}), client, target, str(path))
