"""The part of a graph that static INT8 covers: weighted layers, and what follows them up to a float operator.

In front of the first layer and behind an operator without an INT8 kernel nothing is rounded, since nothing
would be gained there.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx

from petra_optuna.operations.weight_only import derived
from petra_optuna.pipeline import FloatReason

WEIGHTED = ("Conv", "Gemm", "MatMul")
_SAME_STEPS = (
    "AveragePool",
    "Clip",
    "Flatten",
    "Gather",
    "MaxPool",
    "Pad",
    "Relu",
    "Reshape",
    "Resize",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
"""Operators whose output takes the steps of their input."""

_OWN_STEPS = ("Add", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid")

MASKING = (*_OWN_STEPS, "Pad")
"""Operators that may put the values of a mask beside others."""

OPERATORS = (*WEIGHTED, *_SAME_STEPS, *_OWN_STEPS)
"""Operators with an INT8 kernel that lie in or between residual blocks, so that the blocks stay in INT8.

Normalisations and softmax have none, or lose precision for no speed.
"""


def weighted_layers(graph: onnx.GraphProto, left: Collection[str] = ()) -> list[onnx.NodeProto]:
    """Nodes that multiply with a stored weight in INT8; the product of two stored factors is none."""
    stored = {tensor.name for tensor in graph.initializer}
    constant, floats = derived(graph), {*left, *batched_products(graph)}
    return [
        node
        for node in graph.node
        if node.op_type in WEIGHTED
        and node.input[1] in stored
        and node.output[0] not in constant
        and node.name not in floats
    ]


def batched_products(graph: onnx.GraphProto) -> dict[str, FloatReason]:
    """Name of each product with a stored weight that is no matrix -> why it stays in float."""
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    return {
        node.name: FloatReason(reason=f"its weight has {ranks[name]} dimensions, INT8 kernels take matrices")
        for node in graph.node
        if node.op_type == "MatMul"
        for name in node.input
        if ranks.get(name, 2) != 2
    }


def int8_nodes(graph: onnx.GraphProto, left: Collection[str] = ()) -> list[onnx.NodeProto]:
    """The nodes to quantise, in the graph's order, with the layers named in ``left`` in float."""
    constant, floats = derived(graph), {*left, *batched_products(graph)}
    reached: set[str] = set()
    nodes = []
    for node in graph.node:
        if node.name in floats or node.output[0] in constant:
            continue
        between = node.op_type in OPERATORS and any(name in reached for name in node.input)
        if node.op_type in WEIGHTED or between:
            nodes.append(node)
            reached.update(node.output)
    return nodes


def rounded_tensors(graph: onnx.GraphProto, left: Collection[str] = ()) -> set[str]:
    """Names of the weights and activations that the file rounds, as ONNX Runtime's tool decides it."""
    rounded: set[str] = set()
    for node in int8_nodes(graph, left):
        if node.op_type in WEIGHTED:
            rounded.update([*node.input[:2], *node.output])
        elif node.op_type in _OWN_STEPS:
            rounded.update([*node.input, *node.output])
        elif node.input[0] in rounded:
            rounded.update(node.output)
    return rounded


def feeding_layers(graph: onnx.GraphProto, left: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    """Name of each layer in INT8 -> names of those that feed it with only INT8 operators between."""
    layers = {node.name for node in weighted_layers(graph, left)}
    sources: dict[str, tuple[str, ...]] = {}
    feeding: dict[str, tuple[str, ...]] = {}
    for node in int8_nodes(graph, left):
        feeders = tuple(dict.fromkeys(name for tensor in node.input for name in sources.get(tensor, ())))
        if node.name in layers:
            feeding[node.name] = feeders
        through = (node.name,) if node.name in layers else feeders
        sources.update(dict.fromkeys(node.output, through))
    return feeding


def count_int8_weights(model: onnx.ModelProto) -> int:
    """How many layers read a weight that is stored in INT8 for INT8 arithmetic."""
    stored = {tensor.name for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    restored = [
        makers[node.input[1]]
        for node in model.graph.node
        if node.op_type in WEIGHTED and node.input[1] in makers
    ]
    return sum(maker.op_type == "DequantizeLinear" and maker.input[0] in stored for maker in restored)
