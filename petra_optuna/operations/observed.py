"""What the tensors of a graph hold on a batch of real inputs, and what INT8 cannot hold of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, numpy_helper

from petra_optuna.nn.quantization import why_too_coarse
from petra_optuna.operations.int8_graph import MASKING, WEIGHTED, int8_nodes, rounded_tensors, weighted_layers
from petra_optuna.pipeline import FloatReason


def observed(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The float tensors of a graph by name: inputs, stored values, and what its nodes compute.

    Args:
        model: Float graph; it is not changed.
        feeds: One batch of inputs by name.
    """
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    outputs = {value.name for value in seen.graph.output}
    names = [name for node in seen.graph.node for name in node.output if name and name not in outputs]
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        seen.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    computed = zip((value.name for value in seen.graph.output), session.run(None, dict(feeds)), strict=True)
    stored = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }
    everything = {**stored, **feeds, **dict(computed)}
    return {name: array for name, array in everything.items() if getattr(array, "dtype", None) == np.float32}


def coarse_tensors(
    values: Mapping[str, np.ndarray],
    names: Collection[str],
    stored: Collection[str],
    masked: Collection[str] = (),
) -> dict[str, str]:
    """Name of each of these tensors that INT8 cannot hold -> the reason.

    Args:
        values: Tensors of a graph by name.
        names: Names of the tensors that are judged.
        stored: Names of stored ones, whose first dimension counts no samples.
        masked: Names of those that may hold masks.
    """
    reasons = {
        name: why_too_coarse(
            torch.tensor(values[name]), may_mask=name in masked, by_sample=name not in stored
        )
        for name in names
        if name in values
    }
    return {name: reason for name, reason in reasons.items() if reason is not None}


def unfit_nodes(graph: onnx.GraphProto, values: Mapping[str, np.ndarray]) -> dict[str, FloatReason]:
    """Name of each node that static INT8 would ruin -> why it stays in float.

    Args:
        graph: Graph whose nodes have names.
        values: Its tensors on real inputs (``observed``).
    """
    left: dict[str, FloatReason] = {}
    weights = {node.input[1] for node in weighted_layers(graph)}
    stored = {tensor.name for tensor in graph.initializer}
    masked = _touched(node for node in int8_nodes(graph) if node.op_type in MASKING)
    coarse = coarse_tensors(values, sorted(rounded_tensors(graph) - weights), stored, masked)
    while True:
        rounded = rounded_tensors(graph, left)
        still_coarse = {name: reason for name, reason in coarse.items() if name in rounded}
        unfit = _touching(int8_nodes(graph, left), still_coarse)
        if not unfit:
            return left
        left |= unfit


def coarse_nodes(graph: onnx.GraphProto, values: Mapping[str, np.ndarray]) -> dict[str, FloatReason]:
    """Name of each node, of any kind, that reads or writes what INT8 cannot hold -> why it stays in float."""
    stored = {tensor.name for tensor in graph.initializer}
    weights = {node.input[1] for node in weighted_layers(graph)}
    masked = _touched(node for node in graph.node if node.op_type not in WEIGHTED)
    return _touching(graph.node, coarse_tensors(values, sorted(values.keys() - weights), stored, masked))


def coarse_inputs(graph: onnx.GraphProto, values: Mapping[str, np.ndarray]) -> dict[str, FloatReason]:
    """Name of each layer whose input dynamic INT8 would ruin -> why it stays in float."""
    layers = [node for node in graph.node if node.op_type in WEIGHTED]
    stored = {tensor.name for tensor in graph.initializer}
    coarse = coarse_tensors(values, sorted({node.input[0] for node in layers}), stored)
    return {
        node.name: _unfit(node.input[0], coarse[node.input[0]]) for node in layers if node.input[0] in coarse
    }


def _touched(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Names of all that the nodes read and write."""
    return {name for node in nodes for name in (*node.input, *node.output)}


def _touching(nodes: Iterable[onnx.NodeProto], coarse: Mapping[str, str]) -> dict[str, FloatReason]:
    """Name of each of the nodes that reads or writes a coarse tensor -> why it stays in float."""
    return {
        node.name: _unfit(name, coarse[name])
        for node in nodes
        for name in (*node.input, *node.output)
        if name in coarse
    }


def _unfit(name: str, reason: str) -> FloatReason:
    return FloatReason(reason=f"{name!r} does not fit INT8, {reason}")
