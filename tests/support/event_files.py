"""Tables of events in the layouts that people have, small and made up."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

VALUES = ("bread", "fuel", "rent")
"""Categories of the planted events, each as frequent as the others in every class."""
SCHEMA = {
    "events": "events.csv",
    "targets": "targets.csv",
    "target": "label",
    "client": "client",
    "time": "day",
    "categories": {"shop": {"width": 4}},
    "numbers": {"amount": {"transform": "log"}},
    "slices": {"count": 5, "shortest": 10, "longest": 25},
    "encoder": {"hidden": 32, "embedding": 16},
    "training": {"epochs": 10, "batch_size": 32, "peak_lr": 0.01},
    "quality": "auc",
}


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """A CSV file with a header, columns side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def write_schema(folder: Path, **changes: Any) -> Path:
    """The schema of the planted events, with changes."""
    path = folder / "schema.json"
    path.write_text(json.dumps({**SCHEMA, **changes}), encoding="utf-8")
    return path


def write_planted(folder: Path, clients: int, events: int = 40, seed: int = 0) -> Path:
    """Clients whose class is the direction in which they go round the three shops; counts say nothing.

    From an event to the next one a client goes on with probability 0.8 and to a random shop else. A third of
    the clients have half as many events.
    """
    rng = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {name: [] for name in ("client", "day", "shop", "amount")}
    labels = rng.integers(0, 2, clients)
    for client, label in enumerate(labels):
        count = events // 2 if client % 3 == 0 else events
        shop = rng.integers(3)
        for day in range(count):
            step = 1 if label else -1
            shop = (shop + step) % 3 if rng.random() < 0.8 else rng.integers(3)
            columns["client"].append(f"c{client}")
            columns["day"].append(day)
            columns["shop"].append(VALUES[shop])
            columns["amount"].append(f"{rng.lognormal(3, 1):.2f}")
    write_csv(folder / "events.csv", columns)
    write_csv(
        folder / "targets.csv",
        {"client": [f"c{client}" for client in range(clients)], "label": labels.tolist()},
    )
    write_schema(folder)
    return folder
