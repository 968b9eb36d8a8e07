"""Classes of clients, and which clients are train, selection and test."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from petra_optuna.errors import DataError
from petra_optuna.tasks.events.gather import MISSING, Coder
from petra_optuna.tasks.images import positions_in_class

UNLABELLED, TRAIN, SELECTION, TEST = 0, 1, 2, 3
"""Part of a client. Unlabelled clients train the encoder and are in no split of the quality."""
NO_CLASS = -1
SPLITS = 5
"""One client of a class in so many is selection, one is test."""
LEAST_CLIENTS = 3
"""Fewest clients of a class: one in each part."""


@dataclasses.dataclass(frozen=True)
class ClientParts:
    """What is known of each client.

    Attributes:
        targets: Class index (clients,), ``NO_CLASS`` where it is unlabelled.
        parts: Part (clients,).
        labels: Names of the classes in order of their index.
    """

    targets: np.ndarray
    parts: np.ndarray
    labels: tuple[str, ...]


def read_targets(batches: Iterable[Any], client: str, target: str, described: str) -> dict[str, str]:
    """Class of each client.

    Args:
        batches: Record batches of pyarrow.
        client: Column that names the client.
        target: Column of its class.
        described: What is read, in the words of the errors.

    Raises:
        DataError: When a client or a class is missing, or a client has several rows.
    """
    clients, classes, given = Coder(), Coder(), dict[str, str]()
    for batch in batches:
        pairs = zip(
            clients.encode(batch.column(client)).tolist(),
            classes.encode(batch.column(target)).tolist(),
            strict=True,
        )
        for number, (of_client, of_class) in enumerate(pairs, len(given) + 1):
            if MISSING in (of_client, of_class):
                raise DataError(f"row {number} of {described} lacks {client!r} or {target!r}; mend the row")
            name = clients.texts[of_client - 1]
            if name in given:
                raise DataError(f"{described} names client {name!r} twice; give each client one row")
            given[name] = classes.texts[of_class - 1]
    return given


def parts_of(clients: Sequence[str], targets: Mapping[str, str], described: str) -> ClientParts:
    """Classes and parts of clients.

    Of each class the clients stand in the order of the SHA-1 of their names. Of five in that order the first
    is test and the second selection, so that neither the order of the file nor the numbering counts.

    Args:
        clients: Names of the clients that have events.
        targets: Class of each labelled client.
        described: Where the targets come from, in the words of the errors.

    Raises:
        DataError: When a labelled client has no events, there is one class only, or a class has fewer than
            ``LEAST_CLIENTS`` clients.
    """
    without = targets.keys() - set(clients)
    if without:
        raise DataError(
            f"{len(without)} clients of {described} have no events, {min(without)!r} is one; "
            "give their events or leave their targets out"
        )
    labels = _sorted_labels(set(targets.values()))
    if len(labels) < 2:
        raise DataError(
            f"{described} has the one class {labels[0]!r}; at least 2 are needed"
            if labels
            else f"{described} has no targets; at least two classes are needed"
        )
    index = {label: number for number, label in enumerate(labels)}
    classes = np.array([index[targets[name]] if name in targets else NO_CLASS for name in clients])
    for label, count in sorted(Counter(targets.values()).items()):
        if count < LEAST_CLIENTS:
            raise DataError(
                f"class {label!r} of {described} has {count} clients; at least {LEAST_CLIENTS} are needed, "
                "one each for train, selection and test"
            )
    order = np.argsort([hashlib.sha1(name.encode()).hexdigest() for name in clients], kind="stable")
    order = order[classes[order] != NO_CLASS]
    place = positions_in_class(torch.from_numpy(classes[order])).numpy() % SPLITS
    parts = np.full(len(clients), UNLABELLED, dtype=np.int8)
    parts[order] = np.select([place == 0, place == 1], [TEST, SELECTION], TRAIN)
    return ClientParts(classes, parts, labels)


def _sorted_labels(labels: set[str]) -> tuple[str, ...]:
    """Names of the classes: by value where all are numbers, else by name."""
    try:
        return tuple(sorted(labels, key=lambda label: (float(label), label)))
    except ValueError:
        return tuple(sorted(labels))
