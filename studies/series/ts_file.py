"""Labelled series from ``.ts`` files, the format of the UCR and UEA archives.

A line of the header is ``@key values``, a comment begins with ``#`` or ``%``. After ``@data`` each line is a
series: its channels separated by ``:``, numbers by commas, and the label of its class at the end.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from petra_optuna.errors import DataError, one_line


@dataclasses.dataclass(frozen=True)
class LabeledSeries:
    """Series of one file.

    Attributes:
        series: Each float32 (channels, its own number of steps).
        labels: Label of each.
        classes: Labels that there are, in the order of the header.
    """

    series: tuple[npt.NDArray[np.float32], ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]


def read_ts(path: Path) -> LabeledSeries:
    """Read a file of the archives.

    Raises:
        DataError: When it is missing, not readable or without series, has time stamps, missing values or no
            classes, or a line has another number of channels or an unknown label; the text names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable .ts file: {one_line(error)}") from error
    begin = next((row for row, line in enumerate(lines) if line.strip().lower() == "@data"), None)
    if begin is None:
        raise DataError(f"{path} has no line @data; it is no .ts file or is cut")
    classes = _classes(path, lines[:begin])
    series: list[npt.NDArray[np.float32]] = []
    labels = []
    for number, line in enumerate(lines[begin + 1 :], begin + 2):
        if not line.strip() or line.startswith(("#", "%")):
            continue
        *channels, label = line.strip().split(":")
        if label not in classes:
            raise DataError(f"{path}:{number} has the label {label!r}; the header names {', '.join(classes)}")
        if series and len(channels) != len(series[0]):
            raise DataError(f"{path}:{number} has {len(channels)} channels, the first line {len(series[0])}")
        series.append(_channels(path, number, channels))
        labels.append(label)
    if not series:
        raise DataError(f"{path} has no series after @data")
    return LabeledSeries(tuple(series), tuple(labels), classes)


def _classes(path: Path, header: list[str]) -> tuple[str, ...]:
    fields = {}
    for line in header:
        if line.startswith("@"):
            key, *values = line[1:].split()
            fields[key.lower()] = values
    if fields.get("timestamps", ["false"])[0].lower() == "true":
        raise DataError(f"{path} has time stamps; give a file of plain series")
    given = fields.get("classlabel", ["false"])
    if given[0].lower() != "true" or len(given) < 3:
        raise DataError(f"{path} names fewer than two classes in @classLabel; give a file of labelled series")
    return tuple(given[1:])


def _channels(path: Path, number: int, channels: list[str]) -> npt.NDArray[np.float32]:
    try:
        rows = [[float(value) for value in channel.split(",")] for channel in channels]
    except ValueError as error:
        raise DataError(f"{path}:{number} has a value that is no number: {one_line(error)}") from error
    if len({len(row) for row in rows}) != 1 or not all(math.isfinite(value) for row in rows for value in row):
        raise DataError(f"{path}:{number} has channels of several lengths, or values that are not finite")
    return np.array(rows, dtype=np.float32)
