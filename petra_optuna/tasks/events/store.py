"""Events of all clients on disk, sorted and encoded once, and mapped into memory where they are read.

A client's events lie together, ordered by time; events of one time stay in the order of their file. All of
them are kept, also where two are equal: two purchases of one day are two events.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from petra_optuna.errors import DataError
from petra_optuna.files import write_to_cache
from petra_optuna.models.event_encoder import FIRST_VALUE, UNKNOWN
from petra_optuna.tasks.events.gather import Events, gather
from petra_optuna.tasks.events.parts import SELECTION, TEST, parts_of
from petra_optuna.tasks.events.schema import EventSchema

logger = logging.getLogger(__name__)

FORM = 1
"""Number of the form of the files; another form is built anew."""


@dataclasses.dataclass(frozen=True)
class EventSource:
    """Where events and targets come from.

    Attributes:
        name: Name of the data, the first part of the folder's name.
        files: All files; paths, sizes and times are a part of the folder's name.
        schema: Columns to read.
        events: Makes record batches with the columns of the schema.
        targets: Reads the class of each labelled client.
        described: Files of the events and of the targets, in the words of the errors.
    """

    name: str
    files: tuple[Path, ...]
    schema: EventSchema
    events: Callable[[], Iterator[Any]]
    targets: Callable[[], Mapping[str, str]]
    described: tuple[str, str]

    def digest(self) -> str:
        """Hash of what the stored events depend on.

        Raises:
            DataError: When a file is missing.
        """
        digest = hashlib.sha256(json.dumps([FORM, self.schema.key()], sort_keys=True).encode())
        for path in self.files:
            try:
                stat = path.stat()
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error.strerror}; check the path") from error
            digest.update(f"{path.absolute()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class EventStore:
    """Events by client, mapped from files.

    Attributes:
        folder: Folder of the files.
        schema: Columns that were read.
        facts: Names of the classes, vocabularies and hash, as they are in ``facts.json``.
    """

    folder: Path
    schema: EventSchema
    facts: Mapping[str, Any]

    @cached_property
    def categories(self) -> np.ndarray:
        """Category numbers of each event (E, C), unsigned integers."""
        return self._array("categories")

    @cached_property
    def numbers(self) -> np.ndarray:
        """Numeric values of each event, float32 (E, N)."""
        return self._array("numbers")

    @cached_property
    def offsets(self) -> np.ndarray:
        """First event of each client, and the end of the last one's, int64 (clients + 1,)."""
        return self._array("offsets")

    @cached_property
    def targets(self) -> np.ndarray:
        """Class index of each client (clients,); -1 where it is unlabelled."""
        return self._array("targets")

    @cached_property
    def parts(self) -> np.ndarray:
        """Part of each client (clients,), see ``parts``."""
        return self._array("parts")

    @cached_property
    def clients(self) -> np.ndarray:
        """Name of each client (clients,)."""
        return self._array("clients")

    @property
    def lengths(self) -> np.ndarray:
        """Number of events of each client that are read, int64 (clients,)."""
        return np.minimum(np.diff(self.offsets), self.schema.longest)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(self.facts["labels"])

    @property
    def vocabularies(self) -> tuple[tuple[str, ...], ...]:
        """Values of each category in the order of their numbers, the first of which is ``FIRST_VALUE``."""
        return tuple(map(tuple, self.facts["vocabularies"]))

    @property
    def embeddings(self) -> tuple[tuple[int, int], ...]:
        """Rows and width of each category's embedding."""
        columns = zip(self.schema.categories, self.vocabularies, strict=True)
        return tuple(
            (category.rows or FIRST_VALUE + len(values), category.width) for category, values in columns
        )

    def _array(self, name: str) -> np.ndarray:
        array: np.ndarray = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return array


def open_store(source: EventSource, cache_dir: Path) -> EventStore:
    """The stored events of a source, read and written on the first call.

    Args:
        source: Where the events come from.
        cache_dir: Folder of all stored events.

    Raises:
        DataError: When the source cannot be read or the folder cannot be written.
        TaskError: When pyarrow is needed and not installed.
    """
    folder = cache_dir / f"{source.name}-events-{source.digest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire()
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot write to {cache_dir} ({reason}); give another `cache_dir`") from error
    try:
        store = _opened(folder, source.schema)
        if store is None:
            _write(source, folder)
            store = _opened(folder, source.schema)
        assert store is not None
        return store
    finally:
        lock.release()


def _opened(folder: Path, schema: EventSchema) -> EventStore | None:
    """The store of a folder; None where it is not whole."""
    path = folder / "facts.json"
    if not path.exists():
        return None
    try:
        store = EventStore(folder, schema, json.loads(path.read_text(encoding="utf-8")))
        shapes = store.facts["shapes"]
        if shapes == {name: list(store._array(name).shape) for name in shapes}:
            return store
        reason = "arrays of other shapes"
    except (EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error)
    logger.warning("%s is damaged (%s); the events are read again", folder, reason)
    return None


def _write(source: EventSource, folder: Path) -> None:
    """Read a source and write its files, ``facts.json`` last."""
    of_events, of_targets = source.described
    events = gather(source.events(), source.schema, of_events)
    clients = parts_of(events.client_names, source.targets(), of_targets)
    order, offsets = _by_client_and_time(events)
    learned = ~np.isin(clients.parts, (SELECTION, TEST))[events.clients - 1]
    vocabularies = [
        _vocabulary(codes[learned], texts, category.rows)
        for codes, texts, category in zip(
            events.categories, events.category_texts, source.schema.categories, strict=True
        )
    ]
    numbered = [
        _numbered(codes, texts, vocabulary)
        for codes, texts, vocabulary in zip(
            events.categories, events.category_texts, vocabularies, strict=True
        )
    ]
    arrays = {
        "offsets": offsets,
        "targets": clients.targets,
        "parts": clients.parts,
        "clients": np.array(events.client_names),
    }
    digest = hashlib.sha256(json.dumps([vocabularies, clients.labels]).encode())
    columns = {"categories": numbered, "numbers": events.numbers}
    shapes = {
        name: _write_columns(folder / f"{name}.npy", of_kind, order, digest)
        for name, of_kind in columns.items()
        if of_kind
    }
    for name, array in arrays.items():
        with write_to_cache(folder / f"{name}.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, array, allow_pickle=False)
        digest.update(array.tobytes())
        shapes[name] = list(array.shape)
    facts = {
        "labels": clients.labels,
        "vocabularies": vocabularies,
        "shapes": shapes,
        "sha256": digest.hexdigest(),
    }
    with write_to_cache(folder / "facts.json") as temporary:
        temporary.write_text(json.dumps(facts), encoding="utf-8")


def _by_client_and_time(events: Events) -> tuple[np.ndarray | slice, np.ndarray]:
    """The order of the events by client and time, and where each client's begin."""
    counts = np.bincount(events.clients.astype(np.int64) - 1, minlength=len(events.client_names))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    later = events.clients[1:] > events.clients[:-1]
    same = events.clients[1:] == events.clients[:-1]
    if (later | (same & (events.times[1:] >= events.times[:-1]))).all():
        return slice(None), offsets
    return np.lexsort((events.times, events.clients)), offsets


def _vocabulary(codes: np.ndarray, texts: Sequence[str], rows: int | None) -> list[str]:
    """The most frequent values of training clients, the most frequent first, as many as have a row."""
    counts = np.bincount(codes, minlength=len(texts) + 1)[1:].tolist()
    ranked = sorted((-count, text) for text, count in zip(texts, counts, strict=True) if count)
    values = [text for _, text in ranked]
    return values if rows is None else values[: rows - FIRST_VALUE]


def _numbered(codes: np.ndarray, texts: Sequence[str], vocabulary: Sequence[str]) -> np.ndarray:
    """Category number of each event; missing values and those out of the vocabulary are ``UNKNOWN``."""
    numbers = {text: FIRST_VALUE + index for index, text in enumerate(vocabulary)}
    # Indexed by code, the first of which is that of missing values.
    table = np.array([UNKNOWN, *(numbers.get(text, UNKNOWN) for text in texts)])
    return np.asarray(table.astype(np.min_scalar_type(FIRST_VALUE + len(vocabulary)))[codes])


def _write_columns(
    path: Path, columns: Sequence[np.ndarray], order: np.ndarray | slice, digest: Any
) -> list[int]:
    """Write columns side by side in that order; the array never lies in memory as a whole."""
    dtype, shape = np.result_type(*columns), (len(columns[0]), len(columns))
    with write_to_cache(path) as temporary:
        written = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
        for index, column in enumerate(columns):
            ordered = column[order]
            digest.update(f"{index} {dtype}".encode() + np.ascontiguousarray(ordered).data)
            written[:, index] = ordered
        written.flush()
        del written
    return list(shape)
