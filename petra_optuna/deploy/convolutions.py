"""Layouts of one-dimensional convolutions: as exported, or as two-dimensional ones of height 1.

ONNX Runtime's float kernels are faster for two dimensions than for one. The operators between such
convolutions become four-dimensional too, so that a network is unsqueezed at its beginning and squeezed at
its end, not around each layer. A measurement decides which layout is faster: INT8 kernels may prefer one
dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

CONV1D, CONV2D = "1d", "2d"
"""The two layouts, as files and studies store them: as exported, and of height 1."""

_POOLS = ("AveragePool", "MaxPool")
_CHANNELWISE = ("BatchNormalization", "GlobalAveragePool", "GlobalMaxPool", "InstanceNormalization")
_POINTWISE = (
    *("Add", "Clip", "Div", "Max", "Min", "Mul", "PRelu", "Sub"),
    *("Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu"),
    *("Relu", "Selu", "Sigmoid", "Softplus", "Tanh"),
)
_RANK, _HEIGHT = 3, 2
"""Dimensions of (batch, channels, time), and the axis that is new in (batch, channels, height, time)."""
_AXES = "height_axis"
_SUFFIX = "_images"
"""Ending of the name of a tensor's four-dimensional form."""


def has_conv1d(model: onnx.ModelProto) -> bool:
    """Whether the graph has a one-dimensional convolution that ``to_conv2d`` can change."""
    graph = model.graph
    if any(
        attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute
    ):
        return False  # what a branch or loop reads is not among its node's inputs
    return bool(_conv1d_weights(graph))


def to_conv2d(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that computes the same with its one-dimensional convolutions as two-dimensional ones.

    Args:
        model: File, parsed; it is not changed. Without such a convolution an equal copy is returned.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    if has_conv1d(copied):
        _Conv2dRewriter(copied).run()
    return copied


def _conv1d_weights(graph: onnx.GraphProto) -> set[str]:
    """Stored weights of three dimensions that only convolutions read."""
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) == _RANK}
    read = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    others = {
        name
        for node in graph.node
        for index, name in enumerate(node.input)
        if node.op_type != "Conv" or index != 1
    }
    return (weights & read) - others


class _Conv2dRewriter:
    """Rewrites a graph in place, in one walk over its nodes.

    A tensor can exist in three dimensions, in four (its name then ends in ``_SUFFIX``), or in both;
    ``_in_3d`` and ``_in_4d`` hold the names of those that exist so far.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._ranks = _ranks(model)
        self._weights = _conv1d_weights(model.graph)
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._in_3d = {value.name for value in model.graph.input}
        self._in_4d: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self._graph.node]
        for name in self._weights:
            self._stored[name].dims.insert(_HEIGHT, 1)
        for node in nodes:
            if self._keeps_height(node):
                self._lift(node)
            else:
                for name in node.input:
                    self._need_3d(name)
                self._in_3d.update(node.output)
            self._nodes.append(node)
        for value in self._graph.output:
            self._need_3d(value.name)
        self._store(np.array([_HEIGHT], np.int64), _AXES)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        read = {name for node in self._nodes for name in node.input}
        read |= {value.name for value in self._graph.output}
        for tensor in self._stored.values():
            if tensor.name not in read:
                self._graph.initializer.remove(tensor)

    def _keeps_height(self, node: onnx.NodeProto) -> bool:
        """Whether the node becomes one that computes the same on tensors of height 1."""
        if node.op_type == "Conv":
            return node.input[1] in self._weights
        moving = [name for name in node.input if name and name not in self._stored]
        if len(node.output) != 1 or any(self._ranks.get(name) != _RANK for name in (*moving, *node.output)):
            return False
        if node.op_type in _POOLS:
            return True
        if not any(name in self._in_4d for name in moving):
            return False
        if node.op_type == "Pad":
            axes = len(node.input) > 3 and node.input[3]
            return node.input[1] in self._stored and not axes
        return node.op_type in (*_CHANNELWISE, *_POINTWISE, "Concat")

    def _lift(self, node: onnx.NodeProto) -> None:
        """Make the node compute in four dimensions."""
        for index, name in enumerate(node.input):
            if name in self._weights or not name:
                continue
            if node.op_type == "Pad" and index == 1:
                node.input[1] = self._pads(name)
            elif name not in self._stored:
                node.input[index] = self._need_4d(name)
            elif len(self._stored[name].dims) > 1:
                node.input[index] = self._constant(name)
        if node.op_type in ("Conv", *_POOLS):
            for attribute in node.attribute:
                if attribute.name == "pads":
                    attribute.ints[:] = _with_height(attribute.ints)
                elif attribute.name in ("dilations", "kernel_shape", "strides"):
                    attribute.ints.insert(0, 1)
        elif node.op_type == "Concat":
            axis = node.attribute[0]
            axis.i = axis.i % _RANK + (axis.i % _RANK == _HEIGHT)
        self._in_4d.update(node.output)
        node.output[0] += _SUFFIX

    def _need_4d(self, name: str) -> str:
        if name not in self._in_4d:
            self._in_4d.add(name)
            output = name + _SUFFIX
            self._nodes.append(
                helper.make_node("Unsqueeze", [name, _AXES], [output], name=f"{name}_unsqueeze")
            )
        return name + _SUFFIX

    def _need_3d(self, name: str) -> None:
        if name in self._in_4d and name not in self._in_3d:
            self._in_3d.add(name)
            self._nodes.append(
                helper.make_node("Squeeze", [name + _SUFFIX, _AXES], [name], name=f"{name}_squeeze")
            )

    def _constant(self, name: str) -> str:
        values = numpy_helper.to_array(self._stored[name])
        return self._store(np.expand_dims(values, -2), name + _SUFFIX)

    def _pads(self, name: str) -> str:
        pads = numpy_helper.to_array(self._stored[name])
        return self._store(np.insert(pads, [_HEIGHT, _RANK + _HEIGHT], 0), name + _SUFFIX)

    def _store(self, values: np.ndarray, name: str) -> str:
        if all(tensor.name != name for tensor in self._graph.initializer):
            self._graph.initializer.append(numpy_helper.from_array(values, name))
        return name


def _with_height(pads: Sequence[int]) -> list[int]:
    half = len(pads) // 2
    return [0, *pads[:half], 0, *pads[half:]]


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    graph = shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in values
        if value.type.tensor_type.HasField("shape")
    }
