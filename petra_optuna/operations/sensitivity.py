"""Layers of a quantised graph that lose most, measured on its output.

The graph runs once with every rounding, then with one layer at a time left in float (partial quantisation,
arXiv 2004.09602, section 5.1), in one session: each rounding has a switch. A tensor between two INT8 layers
is rounded for both, so leaving one of them gains nothing there; each layer is tried with the layers that
feed it as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

_INT8_SUFFIX = "_quantized"
_PRODUCER_SUFFIX = "_QuantizeLinear_Input"


@dataclasses.dataclass(frozen=True)
class FloatGroup:
    """Layers that are left in float together.

    Attributes:
        names: Names of their nodes.
        before: Relative error of the output with these layers in INT8 like all others.
        after: Relative error of the output with these layers in float.
    """

    names: tuple[str, ...]
    before: float
    after: float


class SwitchedGraph:
    """A quantised graph whose roundings are switched on and off one by one.

    Args:
        model: The float graph.
        quantized: The same graph as QDQ pairs, its activation functions kept.
        feeds: One batch of inputs by name.

    Attributes:
        model: The float graph.
    """

    def __init__(
        self, model: onnx.ModelProto, quantized: onnx.ModelProto, feeds: Mapping[str, np.ndarray]
    ) -> None:
        self.model = model
        self._feeds = dict(feeds)
        switched, self._switches = _with_switches(model, quantized)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(
            switched.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._float = self._run(frozenset())

    def error(self, rounded: Collection[str]) -> float:
        """Norm of the output's change relative to its norm, with these tensors rounded."""
        scale = float(np.linalg.norm(self._float))
        return float(np.linalg.norm(self._run(rounded) - self._float)) / scale if scale else 0.0

    def _run(self, rounded: Collection[str]) -> np.ndarray:
        switches = {switch: np.array(name in rounded) for name, switch in self._switches.items()}
        output: np.ndarray = self._session.run(None, {**self._feeds, **switches})[0]
        return output


def worst_layers(
    graph: SwitchedGraph,
    layers: Mapping[str, Sequence[str]],
    rounded: Callable[[frozenset[str]], Collection[str]],
    count: int,
    left: Collection[str] = (),
) -> tuple[FloatGroup, ...]:
    """At most ``count`` layers, those whose return to float repairs most of the output a layer.

    Args:
        graph: The graph with switches.
        layers: Name of each quantised layer -> names of the layers that feed it.
        rounded: Function from layers in float to the tensors that are rounded then.
        count: Most layers that may be left; layers that repair nothing are not.
        left: Layers that are in float already and do not count.
    """
    already = frozenset(left)
    before = graph.error(rounded(already))
    groups = dict.fromkeys(
        group - already
        for name, feeding in layers.items()
        for group in (frozenset({name}), frozenset({name, *feeding}))
        if 0 < len(group - already) <= count
    )
    after = {group: graph.error(rounded(group | already)) for group in groups}
    chosen: list[FloatGroup] = []
    taken: set[str] = set()
    for group in sorted(after, key=lambda group: (after[group] - before) / len(group)):
        if after[group] < before and not group & taken and len(taken | group) <= count:
            chosen.append(FloatGroup(tuple(sorted(group)), before, after[group]))
            taken |= group
    return tuple(chosen)


def _with_switches(
    model: onnx.ModelProto, quantized: onnx.ModelProto
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Each dequantised tensor goes through a ``Where`` with its float self; the switches are inputs."""
    switched = onnx.ModelProto()
    switched.CopyFrom(quantized)
    del switched.graph.value_info[:]
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in quantized.graph.node for name in node.output}
    nodes: list[onnx.NodeProto] = []
    switches: dict[str, str] = {}
    for node in switched.graph.node:
        nodes.append(node)
        if node.op_type != "DequantizeLinear":
            continue
        maker = makers.get(node.input[0])
        name = maker.input[0] if maker is not None else node.input[0].removesuffix(_INT8_SUFFIX)
        if maker is None and (name not in weights or len(weights[name].dims) < 2):
            continue
        key = name.removesuffix(_PRODUCER_SUFFIX)
        if maker is None and key not in switches:
            switched.graph.initializer.append(weights[name])
        switch = switches.setdefault(key, f"{key}_switch")
        result, rounded = node.output[0], f"{node.output[0]}_rounded"
        node.output[0] = rounded
        nodes.append(helper.make_node("Where", [switch, rounded, name], [result]))
    switched.graph.input.extend(
        helper.make_tensor_value_info(switch, TensorProto.BOOL, []) for switch in switches.values()
    )
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del switched.graph.node[:]
    switched.graph.node.extend(copies)
    return switched, switches
