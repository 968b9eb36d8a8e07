"""Reading texts with a class from CSV files."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from petra_optuna.errors import DataError, one_line


@dataclasses.dataclass(frozen=True)
class LabeledTexts:
    """Texts of a file and their classes.

    Attributes:
        texts: One text a sample; title and description are joined by a space.
        targets: Class indices, from 0.
    """

    texts: tuple[str, ...]
    targets: tuple[int, ...]


def read_labeled_texts(path: Path, classes: int) -> LabeledTexts:
    """Read rows of class (from 1), title and description; one text column or more, all of which are joined.

    A header is skipped: a first row whose class is no number. Empty lines are skipped too.

    Args:
        path: CSV file in UTF-8.
        classes: Number of classes.

    Raises:
        DataError: When the file is missing, empty or not readable, or a row has no text or no such class.
    """
    texts, targets = [], []
    for number, (line, row) in enumerate(_rows(path)):
        if number == 0 and len(row) > 1 and not row[0].strip().isdecimal():
            continue
        if len(row) < 2:
            raise DataError(f"{path}:{line} has one column; expected class, title and description")
        given = row[0].strip()
        if not given.isdecimal() or int(given) not in range(1, classes + 1):
            raise DataError(f"{path}:{line} has class {given!r}; expected a number from 1 to {classes}")
        texts.append(" ".join(row[1:]))
        targets.append(int(given) - 1)
    if not texts:
        raise DataError(f"{path} has no rows; expected class, title and description in each")
    return LabeledTexts(tuple(texts), tuple(targets))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the number of its last line."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a readable CSV file in UTF-8: {one_line(error)}") from error
