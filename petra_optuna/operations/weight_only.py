"""Weights stored in INT8 and multiplied in float: recurrent matrices, embedding tables, factors.

Behind the INT8 values stands ``Cast`` and ``Mul`` by one scale a channel. ONNX Runtime computes that once,
when it loads the file, so the speed is that of the float file. A ``DequantizeLinear`` it would keep and
repeat in each call: it made a GRU of 800 units 2.5 times slower and took convolutions their fast layout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from petra_optuna.nn.quantization import why_too_coarse
from petra_optuna.operations.saturation import LIMITS

WEIGHT_INPUTS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "GRU": (1, 2),
    "Gather": (0,),
    "Gemm": (0, 1),
    "LSTM": (1, 2),
    "MatMul": (0, 1),
    "RNN": (1, 2),
}
"""Inputs of an operator that are weights, where they are stored."""

RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
STORED = RECURRENT | {"ConvTranspose", "Gather"}
"""Operators with weights for which ONNX Runtime has no INT8 kernel that is worth it."""

SCALE_SUFFIX = "_int8_scale"
_BYTES_OF_NODES = 250
"""Bytes that the two nodes and their names add to the file."""


def derived(graph: onnx.GraphProto) -> set[str]:
    """Names of what nodes compute from stored values alone, so that it is known before any input.

    The factors of a recurrent matrix are multiplied by such nodes, and its gates put in order.
    """
    stored = {tensor.name for tensor in graph.initializer}
    values: set[str] = set()
    for node in graph.node:
        if any(node.input) and all(name in stored or name in values for name in node.input if name):
            values.update(node.output)
    return values


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose nodes have names of their own, and which carries no shapes of intermediate values.

    Parts of a weight that nodes split off it are stored, as attention's projections of queries and of keys.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    _store_parts(copied.graph)
    del copied.graph.value_info[:]
    taken = Counter(node.name for node in copied.graph.node)
    for index, node in enumerate(copied.graph.node):
        if not node.name or taken[node.name] > 1:
            node.name = f"{node.op_type}_node_{index}"
    return copied


def _store_parts(graph: onnx.GraphProto) -> None:
    """Store what is split off a weight that nothing else reads, and the transpose of that, in place."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(value.name for value in graph.output)
    parts: set[str] = set()
    kept = []
    for node in graph.node:
        split = node.op_type == "Split" or (node.op_type == "Transpose" and node.input[0] in parts)
        if not split or uses[node.input[0]] > 1 or any(name not in stored for name in node.input):
            kept.append(node)
            continue
        arrays = [numpy_helper.to_array(stored[name]) for name in node.input]
        computed = ReferenceEvaluator(node).run(None, dict(zip(node.input, arrays, strict=True)))
        uses.subtract(node.input)
        parts.update(node.output)
        stored |= {
            name: numpy_helper.from_array(np.ascontiguousarray(array), name)
            for name, array in zip(node.output, computed, strict=True)
        }
    if parts:
        tensors = [tensor for name, tensor in stored.items() if uses[name]]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(kept)
        graph.initializer.extend(tensors)


def round_symmetric(weight: np.ndarray, axis: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest integers in [-limit, limit], and the scales, one for each index along ``axis``.

    Args:
        weight: Float32 array of any shape.
        axis: Axis of the channels.
        limit: Integer that the largest magnitude of each channel becomes.

    Returns:
        INT8 values of the weight's shape, and float32 scales that broadcast to it; all-zero channels have
        scale 1.
    """
    others = tuple(index for index in range(weight.ndim) if index != axis)
    peaks = np.abs(weight).max(axis=others, keepdims=True, initial=0.0)
    scales = np.where(peaks > 0, peaks / np.float32(limit), np.float32(1)).astype(np.float32)
    return np.clip(np.rint(weight / scales), -limit, limit).astype(np.int8), scales


def store_int8(model: onnx.ModelProto, operators: Collection[str]) -> tuple[str, ...]:
    """Store the weights of these operators in INT8, in place.

    A matrix that is the product of stored factors is stored as these factors.

    Args:
        model: The graph, changed in place; weights that other operators read as well stay as they are.
        operators: Operator types, keys of ``WEIGHT_INPUTS``.

    Returns:
        Names of the weights, in the order of the file. Those too small to shorten it, and those that INT8
        cannot hold, are left out.
    """
    graph = model.graph
    readers = final_readers(graph)
    chosen = {}
    for tensor in graph.initializer:
        uses = readers.get(tensor.name, ())
        if not uses or tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        if all(node.op_type in operators and index in WEIGHT_INPUTS[node.op_type] for node, index in uses):
            axis = max(channel_axis(node, len(tensor.dims)) for node, _ in uses)
            if saves_bytes(tensor, axis) and why_unfit(tensor) is None:
                chosen[tensor.name] = axis
    nodes = [node for name, axis in chosen.items() for node in _store(graph, name, axis)]
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *kept])
    return tuple(chosen)


def saves_bytes(tensor: onnx.TensorProto, axis: int) -> bool:
    """Whether INT8 values, scales and nodes take less of the file than the float values."""
    return 3 * int(np.prod(tensor.dims)) > 4 * int(tensor.dims[axis]) + _BYTES_OF_NODES


def why_unfit(tensor: onnx.TensorProto) -> str | None:
    """Why INT8 cannot hold a stored weight, a table of masks for example; None where it can."""
    return why_too_coarse(torch.tensor(numpy_helper.to_array(tensor)), by_sample=False)


def channel_axis(node: onnx.NodeProto, dimensions: int) -> int:
    """Axis of a weight's outputs; that of a table's columns, since a scale a row would cost 4 bytes each.

    Recurrent matrices are the last two dimensions of a tensor that may hold both directions.
    """
    if node.op_type in ("ConvTranspose", "Gather"):
        return 1
    return max(dimensions - 2, 0) if node.op_type in RECURRENT else 0


def _store(graph: onnx.GraphProto, name: str, axis: int) -> Iterator[onnx.NodeProto]:
    tensor = next(tensor for tensor in graph.initializer if tensor.name == name)
    values, scales = round_symmetric(numpy_helper.to_array(tensor), axis, LIMITS[8])
    graph.initializer.remove(tensor)
    stored, scale, steps = f"{name}_int8", f"{name}{SCALE_SUFFIX}", f"{name}_int8_steps"
    graph.initializer.append(numpy_helper.from_array(values, stored))
    graph.initializer.append(numpy_helper.from_array(scales, scale))
    yield helper.make_node("Cast", [stored], [steps], name=steps, to=TensorProto.FLOAT)
    yield helper.make_node("Mul", [steps, scale], [name], name=f"{name}_int8_float")


def final_readers(graph: onnx.GraphProto) -> dict[str, list[tuple[onnx.NodeProto, int]]]:
    """By weight, the nodes that read it or what is derived from it, each with the number of the input."""
    constant = derived(graph)
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in reversed(graph.node):
        through = [use for name in node.output for use in readers.get(name, ())]
        for index, name in enumerate(node.input):
            readers.setdefault(name, []).extend(through if node.output[0] in constant else [(node, index)])
    return readers
