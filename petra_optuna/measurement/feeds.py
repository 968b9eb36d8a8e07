"""Sample inputs in a folder, from one process to another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def write_feeds(folder: Path, feeds: Mapping[str, np.ndarray]) -> None:
    """Write arrays by number beside a list of their names, for ``load_feeds``."""
    (folder / "names.json").write_text(json.dumps(list(feeds)), encoding="utf-8")
    for index, array in enumerate(feeds.values()):
        np.save(folder / f"{index}.npy", array, allow_pickle=False)


def load_feeds(folder: Path) -> dict[str, np.ndarray]:
    """Arrays by input name, as ``write_feeds`` wrote them."""
    names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
    return {name: np.load(folder / f"{index}.npy") for index, name in enumerate(names)}
