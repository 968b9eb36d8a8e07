"""The signature of a file's shape: what its latency depends on, and nothing that it does not depend on.

Files of one signature hold the same graph with other weights. A runtime spends the same time on them, so they
share their latency.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from petra_optuna.errors import MeasurementFailed, RuntimeFailed
from petra_optuna.runtimes import read_onnx

_STRUCTURAL = ("INT64", "BOOL")
"""Types of tensors that say what a graph does (shapes, axes, indices); the others are weights and scales."""
_DECIDED_BY_VALUE = ("Pow",)
"""Operators whose speed follows from a constant input: a runtime squares faster than it takes a root."""


def shape_signature(file: Path, *setting: object) -> str:
    """SHA-256 of a file's graph without its weights: operators, attributes, shapes and types.

    Args:
        file: ONNX file.
        setting: What the latency depends on besides the graph, JSON-ready: device profile, machine, baseline.

    Raises:
        MeasurementFailed: When the file cannot be read.
    """
    try:
        model = read_onnx(file)
    except RuntimeFailed as error:
        raise MeasurementFailed(f"file {file.name}: {error}") from error
    parts = [
        sorted((opset.domain, opset.version) for opset in model.opset_import),
        _Graph(model.graph).describe(),
        [[function.name, *_Graph(function).describe_nodes()] for function in model.functions],
        setting,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class _Graph:
    """Describes a graph; tensors are numbered in the order in which they appear, since names mean nothing.

    Args:
        graph: Graph, or a function's body.
        outer: Numbers of the tensors of the graph around it.
    """

    def __init__(self, graph: Any, outer: dict[str, int] | None = None) -> None:
        self._graph = graph
        self._onnx = importlib.import_module("onnx")
        self._numbers = dict(outer or {})
        self._nodes = [node for node in graph.node if not _is_constant(node)]
        self._constants = {tensor.name: tensor for tensor in getattr(graph, "initializer", ())}
        self._constants |= {node.output[0]: node.attribute[0].t for node in graph.node if _is_constant(node)}

    def describe(self) -> list[Any]:
        """Inputs, nodes and outputs."""
        inputs = [self._describe_value(value) for value in self._graph.input]
        nodes = self.describe_nodes()
        return [inputs, nodes, [self._describe_value(value) for value in self._graph.output]]

    def describe_nodes(self) -> list[Any]:
        """Operators in their order, with attributes and inputs."""
        return [self._describe_node(node) for node in self._nodes]

    def _describe_node(self, node: Any) -> list[Any]:
        inputs = [self._describe_input(name, node.op_type) for name in node.input]
        attributes = sorted((item.name, self._describe_attribute(item)) for item in node.attribute)
        return [node.domain, node.op_type, inputs, attributes, [self._number(name) for name in node.output]]

    def _describe_input(self, name: str, operator: str) -> Any:
        constant = self._constants.get(name)
        if constant is None:
            return self._number(name)
        return [self._number(name), *self._describe_tensor(constant, operator)]

    def _describe_attribute(self, attribute: Any) -> Any:
        value = self._onnx.helper.get_attribute_value(attribute)
        if isinstance(value, self._onnx.TensorProto):
            return self._describe_tensor(value)
        if isinstance(value, self._onnx.GraphProto):
            return _Graph(value, self._numbers).describe()
        return _plain(value)

    def _describe_tensor(self, tensor: Any, operator: str = "") -> list[Any]:
        """Type and shape of a constant, and its values where they decide what the graph does."""
        kind = self._onnx.TensorProto.DataType.Name(tensor.data_type)
        described: list[Any] = [kind, list(tensor.dims)]
        counts = kind in _STRUCTURAL or (operator in _DECIDED_BY_VALUE and not tensor.dims)
        if counts and tensor.data_location != self._onnx.TensorProto.EXTERNAL:
            values = np.ascontiguousarray(self._onnx.numpy_helper.to_array(tensor))
            described.append(hashlib.sha256(values.tobytes()).hexdigest())
        return described

    def _describe_value(self, value: Any) -> list[Any]:
        tensor = value.type.tensor_type
        dimensions = [
            dimension.dim_value if dimension.HasField("dim_value") else "?" for dimension in tensor.shape.dim
        ]
        return [self._number(value.name), tensor.elem_type, dimensions]

    def _number(self, name: str) -> int:
        """Number of a tensor; -1 for an optional one that is left out."""
        return self._numbers.setdefault(name, len(self._numbers)) if name else -1


def _is_constant(node: Any) -> bool:
    """Whether a node only holds a tensor, as an initialiser does."""
    return bool(node.op_type == "Constant" and node.attribute[0].name == "value")


def _plain(value: Any) -> Any:
    """An attribute's value in a JSON-ready form."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, int | float) else repr(value)
