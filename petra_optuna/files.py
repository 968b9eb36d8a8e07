"""Files that many processes share: other processes see each of them whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from petra_optuna.errors import DataError, StudyError


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without an error.

    Missing folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    try:
        yield Path(name)
        # mkstemp lets only its user read; a cache may be shared.
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` as the whole of the file."""
    with write_whole(path) as temporary:
        temporary.write_bytes(data)


def write_cached(path: Path, data: bytes) -> None:
    """Write a file into a cache folder.

    Raises:
        StudyError: When the folder cannot be written, for example because the disk is full.
    """
    try:
        write_atomically(path, data)
    except OSError as error:
        raise StudyError(
            f"the cache folder {path.parent} cannot be written ({error.strerror}); "
            "make room there or give another as `cache`"
        ) from error


@contextmanager
def write_to_cache(path: Path) -> Iterator[Path]:
    """``write_whole`` of a file in a folder that the user chose.

    Raises:
        DataError: When the folder cannot be written or is full.
    """
    try:
        with write_whole(path) as temporary:
            yield temporary
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"cannot write {path.name} to {path.parent} ({reason}); free space or give another `cache_dir`"
        ) from error
