"""Recurrent layers that compute in INT8, where that is faster than in float."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import helper
from onnxscript.optimizer import remove_unused_nodes

from petra_optuna.nn.quantization import why_too_coarse
from petra_optuna.operations.gru_steps import GruSteps
from petra_optuna.operations.integer_lstm import DOMAIN, integer_lstm
from petra_optuna.operations.recurrent_layer import Constants, RecurrentLayer, attributes
from petra_optuna.pipeline import FloatReason

LEAST_UNITS: Mapping[str, int] = {"GRU": 320, "LSTM": 96}
"""Fewest units with which INT8 is faster than float, and one sample a call takes no longer.

A step of the GRU's loop takes some microseconds besides its product (``studies/results/recurrent_int8.md``).
"""
_NARROW = 2
"""A GRU with more units than its inputs times this multiplies them in float, fast and without rounding."""
_FEW = FloatReason(reason="its inputs are few beside the units, so that it is fast, and they are not rounded")


@dataclasses.dataclass(frozen=True)
class IntegerRecurrent:
    """What ``compute_in_int8`` did.

    Attributes:
        layers: Names of the layers that compute in INT8.
        weight_only: Names of the matrices of their inputs that are stored in INT8 and multiplied in float.
        left: Name of each node that multiplies with one -> why in float.
    """

    layers: tuple[str, ...]
    weight_only: tuple[str, ...]
    left: Mapping[str, FloatReason]


def integer_layers(
    graph: onnx.GraphProto, least_units: Mapping[str, int] | None = None
) -> list[RecurrentLayer]:
    """The recurrent layers of a graph that have enough units and a form that can compute in INT8.

    An LSTM may have any form, with whole matrices. A GRU must have PyTorch's, and sequences of one length;
    its matrices may be factored.

    Args:
        graph: Graph whose nodes have names.
        least_units: Fewest units by operator; ``LEAST_UNITS`` when None.
    """
    least = LEAST_UNITS if least_units is None else least_units
    values = Constants(graph)
    chosen = []
    for node in graph.node:
        if node.op_type not in least or attributes(node).get("hidden_size", 0) < least[node.op_type]:
            continue
        layer = RecurrentLayer.read(node, values)
        if layer is not None and (layer.is_torch_gru() or (node.op_type == "LSTM" and layer.whole)):
            chosen.append(layer)
    return chosen


def coarse_sequences(graph: onnx.GraphProto, values: Mapping[str, np.ndarray]) -> dict[str, FloatReason]:
    """Name of each of these layers whose inputs INT8 cannot hold -> the reason.

    Args:
        graph: Graph whose nodes have names.
        values: Its tensors on real inputs (``observed``).
    """
    coarse: dict[str, FloatReason] = {}
    for layer in integer_layers(graph):
        name = layer.node.input[0]
        samples_first = torch.tensor(values[name]).transpose(0, 1)
        reason = why_too_coarse(samples_first, may_mask=False)
        if reason is not None:
            coarse[layer.node.name] = FloatReason(reason=f"{name!r} does not fit INT8, {reason}")
    return coarse


def compute_in_int8(
    model: onnx.ModelProto,
    coarse: Mapping[str, FloatReason] | None = None,
    least_units: Mapping[str, int] | None = None,
) -> IntegerRecurrent:
    """Let recurrent layers compute in INT8, in place.

    An LSTM whose inputs INT8 cannot hold is not changed; a GRU multiplies such inputs in float.

    Args:
        model: Graph whose nodes have names; changed in place.
        coarse: Name of each layer whose inputs INT8 cannot hold -> the reason.
        least_units: Fewest units by operator; ``LEAST_UNITS`` when None.
    """
    coarse = coarse or {}
    parts: dict[str, list[onnx.NodeProto]] = {}
    weights: list[str] = []
    left: dict[str, FloatReason] = {}
    for layer in integer_layers(model.graph, least_units):
        name = layer.node.name
        if layer.node.op_type == "LSTM":
            if name not in coarse:
                parts[name], stored = integer_lstm(layer)
                model.graph.initializer.extend(stored)
            continue
        rounds_inputs = name not in coarse and _NARROW * layer.inputs >= layer.units
        steps = GruSteps(layer, integer_inputs=rounds_inputs)
        parts[name] = steps.nodes
        model.graph.initializer.extend(steps.stored)
        weights += steps.float_weights
        left |= dict.fromkeys(steps.float_products, coarse.get(name, _FEW))
    if parts:
        _replace(model, parts)
    return IntegerRecurrent(tuple(parts), tuple(weights), left)


def _replace(model: onnx.ModelProto, parts: Mapping[str, list[onnx.NodeProto]]) -> None:
    """Put these nodes in the place of those of the names, and drop the float weights that nothing reads."""
    nodes = [part for node in model.graph.node for part in parts.get(node.name, [node])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {node.domain for node in nodes} - {item.domain for item in model.opset_import}
    if DOMAIN in used:
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    remove_unused_nodes(model)
