"""The ends of a graph, where rounding hurts values most: what scales the inputs, and what makes the outputs.

Of classes the largest output counts, of values each digit does. So conversions of a task of values leave the
last layers in float, and what stands behind them. Conversions to 16 bits also leave in float32 what brings
raw inputs to a common scale: a pressure of 755 mmHg has steps of half a unit in float16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx

from petra_optuna.operations.int8_graph import WEIGHTED, weighted_layers
from petra_optuna.operations.weight_only import derived
from petra_optuna.pipeline import FloatReason

LAST = "the last layer of a task of values stays in float"
_FIRST = "it brings the inputs to one scale"
_BEHIND = "it makes values of the last layer's output"


def last_layers(graph: onnx.GraphProto, regression: bool) -> dict[str, FloatReason]:
    """Name of each layer with stored weights behind which no other one follows -> why it stays in float.

    None of a task of classes, and none where the graph has no other layers.

    Args:
        graph: Graph whose nodes have names.
        regression: Whether the task is one of values.
    """
    layers = weighted_layers(graph)
    if not regression:
        return {}
    last = _reaching_no_other(graph, {node.name for node in layers})
    if len(last) == len(layers):
        return {}
    return {name: FloatReason(reason=LAST) for name in last}


def outer_nodes(graph: onnx.GraphProto, regression: bool) -> dict[str, FloatReason]:
    """Name of each node in front of the first layers, of the last layers, and behind them -> why it stays.

    Empty where ``last_layers`` is.

    Args:
        graph: Graph whose nodes have names.
        regression: Whether the task is one of values.
    """
    last = last_layers(graph, regression)
    if not last:
        return {}
    constant = derived(graph)
    kept = dict(last)
    reached = _spread(graph.node, lambda node: node.op_type in WEIGHTED and node.output[0] not in constant)
    behind = _spread(graph.node, lambda node: node.name in last)
    for node in graph.node:
        if node.output[0] in constant or node.name in kept:
            continue
        if node.output[0] not in reached:
            kept[node.name] = FloatReason(reason=_FIRST)
        elif node.output[0] in behind:
            kept[node.name] = FloatReason(reason=_BEHIND)
    return kept


def _spread(nodes: Iterable[onnx.NodeProto], begins: Callable[[onnx.NodeProto], bool]) -> set[str]:
    """Names of the values of the nodes with which something begins, and of all that is computed of them."""
    reached: set[str] = set()
    for node in nodes:
        if begins(node) or any(name in reached for name in node.input):
            reached.update(node.output)
    return reached


def _reaching_no_other(graph: onnx.GraphProto, layers: set[str]) -> list[str]:
    """Those of the layers from which the outputs are reached without another one."""
    makers = {name: node for node in graph.node for name in node.output}
    waiting, seen, last = [value.name for value in graph.output], set[str](), []
    while waiting:
        name = waiting.pop()
        node = makers.get(name)
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.name in layers:
            last.append(node.name)
        else:
            waiting.extend(node.input)
    return sorted(last)
