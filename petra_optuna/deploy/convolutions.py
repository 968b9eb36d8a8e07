"""One-dimensional convolutions of a graph as two-dimensional ones of height 1.

ONNX Runtime has faster float kernels for images than for series. What lies between such convolutions is
kept four-dimensional too, so that a network is unsqueezed where it begins and squeezed where it ends, not
around each layer. Which form is faster is for a measurement to say: INT8 kernels may prefer the series.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

CONV1D, CONV2D = "1d", "2d"
"""The two forms: as exported, and of height 1."""

_POOLS = ("AveragePool", "MaxPool")
_CHANNELWISE = ("BatchNormalization", "GlobalAveragePool", "GlobalMaxPool", "InstanceNormalization")
_POINTWISE = (
    *("Add", "Clip", "Div", "Max", "Min", "Mul", "PRelu", "Sub"),
    *("Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu"),
    *("Relu", "Selu", "Sigmoid", "Softplus", "Tanh"),
)
_RANK, _HEIGHT = 3, 2
"""Of a series (batch, channels, time), and the axis that is new in (batch, channels, height, time)."""
_AXES = "height_axis"
_SUFFIX = "_images"


def has_series(model: onnx.ModelProto) -> bool:
    """Whether the graph has a one-dimensional convolution that ``as_images`` can change."""
    graph = model.graph
    if any(
        attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute
    ):
        return False  # what a branch or loop reads is not among its node's inputs
    return bool(_series_weights(graph))


def as_images(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function with its one-dimensional convolutions as two-dimensional ones.

    Args:
        model: Not changed; without such a convolution an equal copy is returned.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    if has_series(copied):
        _Rewriting(copied).run()
    return copied


def _series_weights(graph: onnx.GraphProto) -> set[str]:
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


class _Rewriting:
    """Walks a graph once. A tensor's four-dimensional form has its name with a suffix."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._ranks = _ranks(model)
        self._weights = _series_weights(model.graph)
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._series = {value.name for value in model.graph.input}
        self._images: set[str] = set()
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
                    self._need_series(name)
                self._series.update(node.output)
            self._nodes.append(node)
        for value in self._graph.output:
            self._need_series(value.name)
        self._store(np.array([_HEIGHT], np.int64), _AXES)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        read = {name for node in self._nodes for name in node.input}
        read |= {value.name for value in self._graph.output}
        for tensor in self._stored.values():
            if tensor.name not in read:
                self._graph.initializer.remove(tensor)

    def _keeps_height(self, node: onnx.NodeProto) -> bool:
        """Whether the node is to compute the same on tensors of height 1."""
        if node.op_type == "Conv":
            return node.input[1] in self._weights
        moving = [name for name in node.input if name and name not in self._stored]
        if len(node.output) != 1 or any(self._ranks.get(name) != _RANK for name in (*moving, *node.output)):
            return False
        if node.op_type in _POOLS:
            return True
        if not any(name in self._images for name in moving):
            return False
        if node.op_type == "Pad":
            axes = len(node.input) > 3 and node.input[3]
            return node.input[1] in self._stored and not axes
        return node.op_type in (*_CHANNELWISE, *_POINTWISE, "Concat")

    def _lift(self, node: onnx.NodeProto) -> None:
        for index, name in enumerate(node.input):
            if name in self._weights or not name:
                continue
            if node.op_type == "Pad" and index == 1:
                node.input[1] = self._pads(name)
            elif name not in self._stored:
                node.input[index] = self._need_images(name)
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
        self._images.update(node.output)
        node.output[0] += _SUFFIX

    def _need_images(self, name: str) -> str:
        if name not in self._images:
            self._images.add(name)
            made = helper.make_node("Unsqueeze", [name, _AXES], [name + _SUFFIX], name=f"{name}_unsqueeze")
            self._nodes.append(made)
        return name + _SUFFIX

    def _need_series(self, name: str) -> None:
        if name in self._images and name not in self._series:
            self._series.add(name)
            made = helper.make_node("Squeeze", [name + _SUFFIX, _AXES], [name], name=f"{name}_squeeze")
            self._nodes.append(made)

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
