"""The parity certificate: what a file gives on real inputs, beside what the model gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from petra_optuna.errors import LoweringFailed
from petra_optuna.runtimes import WeightedKernels

_TYPES = ("float32", "float16", "int8", "uint8", "int32")
_ENOUGH_SAMPLES = 32
"""Below it a correlation is chance."""
_FOLLOWS = 0.9
_CLEARLY = 0.1


def certificate(
    proto: onnx.ModelProto,
    kernels: Mapping[str, int],
    weighted: WeightedKernels,
    expected: np.ndarray,
    actual: np.ndarray,
) -> dict[str, Any]:
    """Compare the file's outputs with the model's, and count what it runs and stores.

    How far the outputs of a converted file may lie from the model's is information: quality is measured by
    running the file.

    Args:
        proto: The file.
        kernels: Kernels of the graph that the runtime runs, by name.
        weighted: Names of the runtime's kernels that multiply with weights.
        expected: The model's outputs, (N, ...).
        actual: The file's outputs for the same inputs, of the same shape.

    Returns:
        JSON-ready: ``samples``; ``agreement``, the share of samples whose largest score is the same one,
        None but for outputs (N, C) with C > 1; ``max_abs_difference``, ``mean_abs_difference``; ``kernels``:
        those that multiply with weights, by precision and type; ``bytes`` of stored values by type.

    Raises:
        LoweringFailed: When a shape is another one, an output is not finite, or outputs are exchanged.
    """
    if actual.shape != expected.shape:
        raise LoweringFailed(f"the model gives shape {expected.shape} and the file {actual.shape}")
    if not np.isfinite(actual).all():
        raise LoweringFailed("the file gives outputs that are not finite")
    refuse_exchanged(expected, actual)
    difference = np.abs(actual.astype(np.float64) - expected)
    scores = expected.ndim == 2 and expected.shape[1] > 1
    return {
        "samples": len(expected),
        "agreement": float(np.mean(actual.argmax(1) == expected.argmax(1))) if scores else None,
        "max_abs_difference": float(difference.max(initial=0.0)),
        "mean_abs_difference": float(difference.mean()) if difference.size else 0.0,
        "kernels": {
            "float": _picked(kernels, weighted.float | weighted.recurrent),
            "int8": _picked(kernels, weighted.int8),
        },
        "bytes": bytes_by_type(proto),
    }


def refuse_exchanged(expected: np.ndarray, actual: np.ndarray) -> None:
    """No output may be another output of the model.

    Rounding can blur an output, however much; it cannot make it follow another one. So with 32 samples or
    more an output fails that correlates with another output of the model by 0.9 or more, and with its own
    by at least 0.1 less. Outputs that the model itself cannot tell apart pass.

    Args:
        expected: The model's, (N, C, ...); the second dimension counts outputs.
        actual: The file's, of the same shape.

    Raises:
        LoweringFailed: Naming the two outputs.
    """
    if expected.ndim < 2 or expected.shape[1] < 2 or len(expected) < _ENOUGH_SAMPLES:
        return
    model, file = (_standardised(array) for array in (expected, actual))
    correlation = file @ model.T
    own = correlation.diagonal()
    other = correlation.argmax(axis=1)
    best = correlation.max(axis=1)
    for index in np.flatnonzero((best >= _FOLLOWS) & (own <= best - _CLEARLY)):
        raise LoweringFailed(
            f"output {index} of the file follows output {other[index]} of the model (correlation "
            f"{best[index]:.2f}, with its own {own[index]:.2f}): outputs are exchanged"
        )


def bytes_by_type(proto: onnx.ModelProto) -> dict[str, int]:
    """Bytes of stored values by their type; ``other`` holds what is not listed."""
    found: Counter[str] = Counter()
    for tensor in proto.graph.initializer:
        kind = TensorProto.DataType.Name(tensor.data_type).lower()
        name = {"float": "float32"}.get(kind, kind)
        found[name if name in _TYPES else "other"] += numpy_helper.to_array(tensor).nbytes
    return {name: found[name] for name in (*_TYPES, "other")}


def _picked(kernels: Mapping[str, int], kinds: frozenset[str]) -> dict[str, int]:
    return {kind: kernels[kind] for kind in sorted(kernels.keys() & kinds)}


def _standardised(array: np.ndarray) -> np.ndarray:
    """One row an output, of mean 0 and length 1; of zeros where it is constant."""
    rows = np.moveaxis(array.astype(np.float64), 1, 0).reshape(array.shape[1], -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit
