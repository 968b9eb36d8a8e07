"""Files in the cache folder: written whole or not at all, and with one line when the disk is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from petra_optuna.errors import DataError
from petra_optuna.files import written_whole as whole


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """As ``petra_optuna.files.written_whole``, with the user's error.

    Raises:
        DataError: When the folder cannot be written.
    """
    try:
        with whole(path) as temporary:
            yield temporary
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"cannot write {path.name} to {path.parent} ({reason}); free space or choose another cache folder"
        ) from error
