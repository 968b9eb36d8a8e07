"""Decoded files of a data set, decoded once and kept in one file of the cache."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from petra_optuna.files import write_to_cache

logger = logging.getLogger(__name__)


def decoded_once(
    files: Sequence[os.DirEntry[str]],
    decode: Callable[[str], np.ndarray],
    *,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    name: str,
    key: str,
    cache_dir: Path,
) -> np.ndarray:
    """The samples of the files in their order, (N, *shape), from the cache or decoded and put there.

    Args:
        files: Files to decode; paths, sizes and times are a part of the kept file's name.
        decode: Maps the path of a file to its sample.
        shape: Shape of each sample.
        dtype: Type of each sample.
        name: First part of the kept file's name.
        key: Text that names what ``decode`` depends on besides the file.
        cache_dir: Folder of the kept file.

    Raises:
        DataError: When the folder cannot be written.
    """
    digest = hashlib.sha256(key.encode())
    for entry in files:
        stat = entry.stat()
        digest.update(f"{entry.path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    path = cache_dir / f"{name}-{digest.hexdigest()[:16]}.npy"
    kept = _read_back(path)
    if kept is not None and kept.shape == (len(files), *shape) and kept.dtype == np.dtype(dtype):
        return kept
    samples = np.empty((len(files), *shape), dtype)
    for row, entry in enumerate(files):
        samples[row] = decode(entry.path)
    with write_to_cache(path) as temporary, open(temporary, "wb") as file:
        np.save(file, samples)
    return samples


def _read_back(path: Path) -> np.ndarray | None:
    """The array of a file; None where there is no file or it is damaged."""
    if not path.exists():
        return None
    try:
        return np.asarray(np.load(path))
    except (EOFError, OSError, ValueError) as error:
        logger.warning("%s is damaged (%s); the data is decoded again", path, error)
        return None
