"""Folders of WAV files by class: which files there are, and which split each belongs to."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Collection
from pathlib import Path

from petra_optuna.errors import DataError, one_line

SELECTION_LIST, TEST_LIST = "validation_list.txt", "testing_list.txt"
NO_CLASS = "_background_noise_"
"""Folder of Speech Commands that holds minutes of noise, and no word."""

SELECTION_PERCENT, TEST_PERCENT = 10.0, 10.0
DIGIT_FILE = re.compile(r"(?P<digit>\d)_(?P<speaker>.+)_(?P<index>\d+)\.wav", re.IGNORECASE)
TEST_DIGITS = 5
"""Recordings of each digit and speaker, counted from 0, that are the test split of Free Spoken Digits."""


@dataclasses.dataclass(frozen=True)
class Recordings:
    """WAV files of a folder, in the order of class and file names.

    Attributes:
        files: The files.
        targets: Class index of each file.
        parts: ``train``, ``selection`` or ``test`` of each file.
        labels: Names of the classes in order of their index.
    """

    files: tuple[os.DirEntry[str], ...]
    targets: tuple[int, ...]
    parts: tuple[str, ...]
    labels: tuple[str, ...]


def find_recordings(root: Path) -> Recordings:
    """The recordings of a folder in the layout of Speech Commands or of Free Spoken Digits.

    Speech Commands (arXiv 1804.03209): ``<class>/*.wav``. A ``testing_list.txt`` names the test files and a
    ``validation_list.txt`` those of selection, one ``<class>/<file>`` a line. Where a list is missing the
    hash of ``hash_percent`` decides: below 10 is selection, below 20 is test.

    Free Spoken Digits: ``recordings/<digit>_<speaker>_<index>.wav`` in the folder or in its folder ``fsdd``.
    Index 0 to 4 is test; of the others the hash of the file name decides: below 10 is selection.

    Raises:
        DataError: When there are fewer than two classes, a class is empty, a list names what is not there, or
            a file of spoken digits has another name.
    """
    for folder in (root / "recordings", root / "fsdd" / "recordings"):
        if folder.is_dir():
            return _spoken_digits(folder)
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give a `data_root` with <class>/*.wav")
    return _by_class(root)


def hash_percent(name: str) -> float:
    """Place of a file between 0 and 100 by the SHA-1 of its name, up to ``_nohash_`` where the name has it.

    In Speech Commands that part names the speaker, so that a speaker's files stay together. The lists of that
    data set were made so (``which_set`` in its README).

    Args:
        name: Name of the file without its folder.
    """
    largest = 2**27 - 1
    digest = hashlib.sha1(re.sub(r"_nohash_.*$", "", name).encode()).hexdigest()
    return int(digest, 16) % (largest + 1) * (100.0 / largest)


def _spoken_digits(folder: Path) -> Recordings:
    files = _wav_files(folder)
    digits, parts = [], []
    for file in files:
        name = DIGIT_FILE.fullmatch(file.name)
        if name is None:
            raise DataError(f"{file.path} is not named <digit>_<speaker>_<index>.wav; rename it or remove it")
        digits.append(name["digit"])
        by_hash = "selection" if hash_percent(file.name) < SELECTION_PERCENT else "train"
        parts.append("test" if int(name["index"]) < TEST_DIGITS else by_hash)
    labels = _checked_labels(sorted(set(digits)), folder)
    return Recordings(files, tuple(labels.index(digit) for digit in digits), tuple(parts), labels)


def _by_class(root: Path) -> Recordings:
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != ".")
    labels = _checked_labels([name for name in folders if name != NO_CLASS], root)
    files = {f"{label}/{file.name}": file for label in labels for file in _wav_files(root / label)}
    selection = _listed(root, SELECTION_LIST, files)
    test = _listed(root, TEST_LIST, files)
    for path in sorted((selection or set()) & (test or set())):
        raise DataError(f"{SELECTION_LIST} and {TEST_LIST} of {root} both name {path}; remove it from one")
    return Recordings(
        tuple(files.values()),
        tuple(labels.index(path.partition("/")[0]) for path in files),
        tuple(_part(path, selection, test) for path in files),
        labels,
    )


def _part(path: str, selection: set[str] | None, test: set[str] | None) -> str:
    """Split of the file ``<class>/<name>``; None stands for a list that is missing."""
    place = hash_percent(path.rpartition("/")[2]) - SELECTION_PERCENT
    if (0 <= place < TEST_PERCENT) if test is None else path in test:
        return "test"
    if (place < 0) if selection is None else path in selection:
        return "selection"
    return "train"


def _listed(root: Path, name: str, files: Collection[str]) -> set[str] | None:
    """Files ``<class>/<name>`` that a list names; None where there is no such list."""
    if not (root / name).exists():
        return None
    try:
        lines = (root / name).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{root / name} cannot be read: {one_line(error)}") from error
    named = {line.strip() for line in lines if line.strip()}
    classes = {path.partition("/")[0] for path in files}
    for path in sorted(named - set(files)):
        label = path.partition("/")[0]
        missing = f"{path}, which is" if label in classes else f"class {label!r}, whose folder is"
        raise DataError(f"{root / name} names {missing} missing; restore it or remove it from the list")
    return named


def _wav_files(folder: Path) -> tuple[os.DirEntry[str], ...]:
    entries = [
        entry for entry in os.scandir(folder) if entry.name.lower().endswith(".wav") and entry.name[0] != "."
    ]
    if not entries:
        raise DataError(f"{folder} has no .wav file; add some or remove the folder")
    return tuple(sorted(entries, key=lambda entry: entry.name))


def _checked_labels(labels: list[str], root: Path) -> tuple[str, ...]:
    if not labels:
        raise DataError(f"{root} has no class folders; expected <class>/*.wav or recordings/*.wav")
    if len(labels) < 2:
        raise DataError(f"{root} has the one class {labels[0]!r}; at least 2 are needed")
    return tuple(labels)
