"""The record of a file that ships."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One ONNX file: everything that the runtime loads.

    Attributes:
        path: Where the file lies.
        size_bytes: Its length.
        sha256: Digest of its bytes.
        lowering: JSON-ready: ``runtime`` and ``precision``, ``kernels`` counted in the graph that it runs,
            ``convolutions``: form of one-dimensional ones, None where it has none,
            ``parity``, the file's ``certificate``, ``conversion`` report (None without a conversion).
    """

    path: Path
    size_bytes: int
    sha256: str
    lowering: dict[str, Any]

    @classmethod
    def describe(cls, path: Path, data: bytes, lowering: dict[str, Any]) -> Artifact:
        """The record of ``data`` as written to ``path``."""
        return cls(path, len(data), hashlib.sha256(data).hexdigest(), lowering)
