"""Weights that a conversion to INT8 leaves in float, each with its reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx
from onnx import TensorProto

from petra_optuna.errors import OperationFailed
from petra_optuna.operations.int8_graph import WEIGHTED
from petra_optuna.operations.weight_only import (
    SCALE_SUFFIX,
    WEIGHT_INPUTS,
    channel_axis,
    derived,
    final_readers,
    saves_bytes,
    why_unfit,
)
from petra_optuna.pipeline import FloatLayer, FloatReason


def nothing_in_int8(code: str, reasons: Mapping[str, FloatReason]) -> OperationFailed:
    """The error of a conversion that leaves every weight in float, with the first reason.

    Args:
        code: Name of the conversion.
        reasons: Name of a layer -> why it is in float.
    """
    why = next((reason["reason"] for reason in reasons.values()), "it has none that INT8 would shorten")
    return OperationFailed(f"{code}: none of the model's weights can be quantised: {why}")


def left_float(
    model: onnx.ModelProto,
    operators: Collection[str],
    reasons: Mapping[str, FloatReason],
) -> list[FloatLayer]:
    """List every layer and stored weight in float, each with its reason; JSON-ready.

    A layer that is in float for none of these reasons is not listed, so the check of the file refuses it.

    Args:
        model: Graph after the conversion.
        operators: Operator types whose weights are stored in INT8 and computed in float.
        reasons: Name of a layer -> why it is in float.
    """
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    computed = {name for node in graph.node for name in node.output if node.op_type != "DequantizeLinear"}
    computed |= {value.name for value in graph.input}
    constant = derived(graph)
    left: list[FloatLayer] = []
    for node in graph.node:
        if node.name in reasons:
            left.append({"name": node.name, "op": node.op_type, **reasons[node.name]})
        elif node.op_type not in WEIGHTED or node.output[0] in constant:
            continue
        elif node.input[1] in computed - stored - constant:
            reason = "its second operand is no weight"
            left.append({"name": node.name, "op": node.op_type, "reason": reason})
    return left + _stored_in_float(graph, operators)


def _stored_in_float(graph: onnx.GraphProto, operators: Collection[str]) -> list[FloatLayer]:
    readers = final_readers(graph)
    left: list[FloatLayer] = []
    for tensor in graph.initializer:
        nodes = [
            node
            for node, index in readers.get(tensor.name, ())
            if node.op_type in operators and index in WEIGHT_INPUTS[node.op_type]
        ]
        weight = tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1
        if not nodes or not weight or tensor.name.endswith(SCALE_SUFFIX):
            continue
        small = not saves_bytes(tensor, max(channel_axis(node, len(tensor.dims)) for node in nodes))
        reason = "too small for INT8 to shorten the file" if small else why_unfit(tensor)
        reason = reason or "other operators read it as well"
        left.append({"name": tensor.name, "op": nodes[0].op_type, "reason": reason})
    return left
