"""Prefix cache: the models that the first nodes of pipelines lead to, on disk, shared by many processes.

An entry is one file: SHA-256 of the rest, a line of JSON (the nodes' reports), then the checkpoint.
Writes are atomic, a damaged entry is removed and counts as missing, and the least recently used
entries leave when the folder outgrows its bound. Nothing is unpickled. Entries may belong to other users:
what this one may not touch, remove or read stays as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from petra_optuna.files import write_cached

_DIGEST_BYTES = 32
_SUFFIX = ".prefix"


@dataclasses.dataclass(frozen=True)
class CacheEntry:
    """One cached prefix.

    Attributes:
        reports: Reports of its nodes in order, JSON-ready.
        checkpoint: The model as bytes (``checkpoint.to_bytes``).
    """

    reports: list[dict[str, Any]]
    checkpoint: bytes


@dataclasses.dataclass(frozen=True)
class PrefixCache:
    """Entries by key, which many processes share.

    Attributes:
        folder: Folder of the entries; made when missing.
        max_bytes: Size of the folder that a write leaves at most, its own entry aside.
    """

    folder: Path
    max_bytes: int = 4 * 2**30

    def get(self, key: str, on_damage: Callable[[], None] | None = None) -> CacheEntry | None:
        """Read an entry.

        Args:
            key: Key of the entry.
            on_damage: Called when the entry is damaged, after it has been removed.

        Returns:
            The entry, or None where there is none, or it is damaged or not to be read by this user.
        """
        path = self._path(key)
        try:
            data = path.read_bytes()
        except (FileNotFoundError, PermissionError):
            return None
        with contextlib.suppress(OSError):  # the order of leaving, no more; it may have left by now
            os.utime(path)
        digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            with contextlib.suppress(FileNotFoundError, PermissionError):
                path.unlink()
            if on_damage is not None:
                on_damage()
            return None
        reports, _, checkpoint = body.partition(b"\n")
        return CacheEntry(json.loads(reports), checkpoint)

    def put(self, key: str, entry: CacheEntry) -> None:
        """Write the entry, then make room.

        Raises:
            StudyError: When the folder cannot be written, for example because the disk is full.
        """
        body = json.dumps(entry.reports).encode() + b"\n" + entry.checkpoint
        write_cached(self._path(key), hashlib.sha256(body).digest() + body)
        self._evict(keep=key)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    def _evict(self, keep: str) -> None:
        entries = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # another process may evict at the same time
                status = path.stat()
                entries.append((status.st_mtime_ns, status.st_size, path))
        excess = sum(size for _, size, _ in entries) - self.max_bytes
        for _, size, path in sorted(entries):
            if excess <= 0:
                return
            if path != self._path(keep):
                with contextlib.suppress(PermissionError):
                    path.unlink(missing_ok=True)
                    excess -= size
