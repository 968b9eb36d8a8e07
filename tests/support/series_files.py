"""Small tables of time series in the layouts that people have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

ROOMS = [f"{name}{room}" for room in range(1, 10) for name in ("T", "RH_")]
COLUMNS = ["date", "Appliances", "lights", *ROOMS, "T_out", "Press_mm_hg", "RH_out", "Windspeed"]
COLUMNS += ["Visibility", "Tdewpoint", "rv1", "rv2"]
START = datetime(2016, 1, 11, 17)


def dates(count: int) -> list[str]:
    """A date every ten minutes, as the energy data writes them."""
    return [f"{START + timedelta(minutes=10 * row):%Y-%m-%d %H:%M:%S}" for row in range(count)]


def write_appliances(folder: Path, rows: int) -> np.ndarray:
    """Write ``energydata_complete.csv`` with its 29 columns; return the 28 of numbers, (rows, 28).

    The number in row r and column c, ``date`` not counted, is ``100 c`` and a random one up to 10.
    """
    values = 100 * np.arange(28) + 10 * np.random.default_rng(0).random((rows, 28))
    values[:, -1] = values[:, -2]
    lines = [",".join(f'"{name}"' for name in COLUMNS)]
    for date, row in zip(dates(rows), values, strict=True):
        lines.append(",".join([f'"{date}"', *(f'" {value:.17g}"' for value in row)]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energydata_complete.csv").write_text("\n".join(lines) + "\n")
    return values


def write_series(folder: Path, columns: Mapping[str, Sequence[Any]], **schema: Any) -> Path:
    """Write ``data.csv`` and a ``series.json`` with the given values besides the file's name."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    (folder / "data.csv").write_text("\n".join(lines) + "\n")
    (folder / "series.json").write_text(json.dumps({"file": "data.csv", **schema}))
    return folder


def waves(rows: int, noise: float = 0.05) -> dict[str, Sequence[Any]]:
    """A sine of period 12, around 300 with a deviation of 70, and what announces it; the hour as time."""
    rng = np.random.default_rng(1)
    steps = np.arange(rows)
    phase = 2 * np.pi * steps / 12
    target = 300 + 100 * (np.sin(phase) + noise * rng.normal(size=rows))
    cause = 1e4 + 5 * (np.cos(phase) + noise * rng.normal(size=rows))
    return {"hour": steps, "load": target.round(4), "cause": cause.round(4)}


def states(rows: int) -> list[str]:
    """Whether the sine of ``waves`` is above zero, half a step later: never on the line between both."""
    phase = 2 * np.pi * (np.arange(rows) + 0.5) / 12
    return ["high" if value > 0 else "low" for value in np.sin(phase)]
