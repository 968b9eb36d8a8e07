"""The parity certificate: the outputs of a file on real inputs against those of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from petra_optuna.errors import LoweringFailed
from petra_optuna.nn.finite import tell_samples
from petra_optuna.runtimes import WeightedKernels

_TYPES = ("float32", "float16", "int8", "uint8", "int32")
_ENOUGH_SAMPLES = 32
"""Least number of samples for a test of correlations; with fewer a correlation may be chance."""
_FOLLOWS = 0.9
"""Least correlation at which an output counts as following another one."""
_CLEARLY = 0.1
"""Least distance between that correlation and the output's own."""


def certificate(
    proto: onnx.ModelProto,
    kernels: Mapping[str, int],
    weighted: WeightedKernels,
    expected: np.ndarray,
    actual: np.ndarray,
) -> dict[str, Any]:
    """Compare the file's outputs with the model's, and count what it runs and stores.

    The distance between the outputs is recorded, not limited: quality is measured by running the file.

    Args:
        proto: File, parsed.
        kernels: Kernels of the graph that the runtime runs, by name.
        weighted: Names of the runtime's kernels that multiply with weights.
        expected: Outputs of the model, (N, ...).
        actual: The file's outputs for the same inputs, of the same shape.

    Returns:
        JSON-ready: ``samples``; ``agreement``, the share of samples whose largest score is the same one (None
        unless outputs are (N, C) with C > 1); ``max_abs_difference``; ``mean_abs_difference``; ``kernels``
        that multiply with weights, by precision and name; ``bytes`` of stored values by type.

    Raises:
        LoweringFailed: When the shapes differ, an output is not finite, or outputs are exchanged.
    """
    if actual.shape != expected.shape:
        raise LoweringFailed(f"the model gives shape {expected.shape} and the file {actual.shape}")
    broken = ~np.isfinite(actual)
    if broken.any():
        raise LoweringFailed(f"the file gives outputs that are not finite for {tell_samples(broken)}")
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
    """Check that the outputs of the file are not those of the model in another order.

    Rounding can lose what tells an output from another one, so that both follow that one. It cannot have them
    change places. So with 32 samples or more a file fails where a ring of outputs each follow the next one:
    they correlate with it by 0.9 or more, and with their own by at least 0.1 less. Outputs that the model
    itself cannot tell apart pass.

    Args:
        expected: Outputs of the model, (N, C, ...); the second dimension counts outputs.
        actual: Outputs of the file, of the same shape.

    Raises:
        LoweringFailed: When one is; the text names the two outputs.
    """
    if expected.ndim < 2 or expected.shape[1] < 2 or len(expected) < _ENOUGH_SAMPLES:
        return
    model, file = (_standardised(array) for array in (expected, actual))
    correlation = file @ model.T
    with_itself = correlation.diagonal()
    nearest = correlation.argmax(axis=1)
    highest = correlation.max(axis=1)
    strays = np.flatnonzero((highest >= _FOLLOWS) & (with_itself <= highest - _CLEARLY))
    for index in _in_rings({int(stray): int(nearest[stray]) for stray in strays}):
        raise LoweringFailed(
            f"output {index} of the file follows output {nearest[index]} of the model (correlation "
            f"{highest[index]:.2f}, with its own {with_itself[index]:.2f}): outputs are exchanged"
        )


def bytes_by_type(proto: onnx.ModelProto) -> dict[str, int]:
    """Bytes of stored values by their type; all types that are not listed count as ``other``."""
    sizes: Counter[str] = Counter()
    for tensor in proto.graph.initializer:
        name = TensorProto.DataType.Name(tensor.data_type).lower()
        name = {"float": "float32"}.get(name, name)
        sizes[name if name in _TYPES else "other"] += numpy_helper.to_array(tensor).nbytes
    return {name: sizes[name] for name in (*_TYPES, "other")}


def _picked(kernels: Mapping[str, int], kinds: frozenset[str]) -> dict[str, int]:
    return {kind: kernels[kind] for kind in sorted(kernels.keys() & kinds)}


def _in_rings(following: Mapping[int, int]) -> list[int]:
    """The outputs that are reached again by going from each output to the one that it follows."""
    in_ring = []
    for start in following:
        output = start
        for _ in following:
            output = following.get(output, -1)
            if output == start:
                in_ring.append(start)
                break
    return in_ring


def _standardised(array: np.ndarray) -> np.ndarray:
    """One row for each output, of mean 0 and length 1; zeros where the output is constant."""
    rows = np.moveaxis(array.astype(np.float64), 1, 0).reshape(array.shape[1], -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit
