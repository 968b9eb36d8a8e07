"""Reading an ONNX file. The package onnx is imported when a file is read: it takes longer than a session."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from petra_optuna.errors import RuntimeFailed, one_line


def read_onnx(file: Path | bytes) -> Any:
    """The model of an ONNX file, an ``onnx.ModelProto``.

    Args:
        file: Path of the file, or its bytes.

    Raises:
        RuntimeFailed: When it cannot be read.
    """
    onnx = importlib.import_module("onnx")
    decode_error = importlib.import_module("google.protobuf.message").DecodeError
    try:
        return onnx.load_model_from_string(file if isinstance(file, bytes) else file.read_bytes())
    except (OSError, decode_error) as error:
        raise RuntimeFailed(f"cannot load the file: {one_line(error)}") from error
