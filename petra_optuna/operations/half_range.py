"""What of a float graph float16 cannot hold: constants and values beyond its range, and values that vanish.

A constant beyond the range, -1e9 in a mask for example, is moved into it where the graph then computes the
same on real inputs. The nodes that overflow or vanish after that stay in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from petra_optuna.errors import OperationFailed
from petra_optuna.operations.observed import observed
from petra_optuna.pipeline import FloatReason

_LARGEST = float(np.finfo(np.float16).max)
_MOVED_TO = 2.0**15
"""Where constants beyond the range go: what is added to a mask there stays within the range."""
_VANISHING = 2.0**-20
"""Below it float16 has 4 bits of precision or fewer."""
_SAME = 1e-3
"""Largest share of an output by which moved constants may change it."""


def fit_half(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]
) -> tuple[onnx.ModelProto, dict[str, FloatReason]]:
    """The graph with constants that float16 can hold, and the nodes that must stay in float32.

    Args:
        model: Float graph whose nodes have names; it is not changed.
        feeds: One batch of real inputs by name.

    Returns:
        The graph, and the name of each node that stays in float32 -> why.

    Raises:
        OperationFailed: When a constant within a branch or a loop is too large and cannot be moved.
    """
    values = observed(model, feeds)
    names = {name for name, tensor in floats_of(model.graph) if _overflows(numpy_helper.to_array(tensor))}
    moved = _moved(model) if names else model
    if names:
        moved_values = observed(moved, feeds)
        outputs = [value.name for value in model.graph.output if value.name in values]
        if all(_are_same(values[name], moved_values[name]) for name in outputs):
            return moved, _unfit(moved.graph, moved_values, set())
    inner = names - {name for node in model.graph.node for name in node.input}
    if inner:
        raise OperationFailed(
            f"fp16: {min(inner)!r} in a branch or loop goes beyond {_LARGEST:g}, the end of float16"
        )
    return model, _unfit(model.graph, values, names)


def floats_of(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Every stored float32 tensor with the name of its value: initialisers, attributes, nested ones too."""
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
                yield node.output[0], attribute.t
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from floats_of(inner)


def clamp_stored(graph: onnx.GraphProto, largest: float, to: float) -> None:
    """Move finite stored values beyond ``largest`` to ``to``, their signs kept, in place."""
    for _, tensor in floats_of(graph):
        array = numpy_helper.to_array(tensor)
        beyond = np.isfinite(array) & (np.abs(array) > largest)
        if beyond.any():
            moved = np.where(beyond, np.copysign(np.float32(to), array), array).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))


def _moved(model: onnx.ModelProto) -> onnx.ModelProto:
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    clamp_stored(moved.graph, _LARGEST, _MOVED_TO)
    return moved


def _unfit(
    graph: onnx.GraphProto, values: Mapping[str, np.ndarray], constants: set[str]
) -> dict[str, FloatReason]:
    reasons: dict[str, FloatReason] = {}
    for node in graph.node:
        for name in (*node.input, *node.output):
            array = values.get(name)
            if name in constants or (array is not None and _overflows(array)):
                told = f"{name!r} goes beyond {_LARGEST:g}, the end of float16"
            elif array is not None and name in node.output and _vanishes(array):
                told = f"{name!r} is too close to zero for float16"
            else:
                continue
            reasons.setdefault(node.name, FloatReason(reason=told))
    return reasons


def _overflows(array: np.ndarray) -> bool:
    return bool((np.isfinite(array) & (np.abs(array) > _LARGEST)).any())


def _vanishes(array: np.ndarray) -> bool:
    """Whether most values that are not zero lose their precision."""
    nonzero = np.abs(array[array != 0])
    return len(nonzero) > 0 and float(np.median(nonzero)) < _VANISHING


def _are_same(first: np.ndarray, second: np.ndarray) -> bool:
    finite = np.isfinite(first)
    if not np.array_equal(finite, np.isfinite(second)):
        return False
    scale = float(np.abs(first[finite]).max(initial=0.0))
    return bool(np.abs(first[finite] - second[finite]).max(initial=0.0) <= _SAME * scale)
