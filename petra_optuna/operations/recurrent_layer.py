"""GRU and LSTM nodes of a graph, with the values of their weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from petra_optuna.nn.quantization import why_too_coarse

_REVERSED = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
_TIME_FIRST = 0
_BIAS, _LENGTHS, _STATE = 3, 4, 5

Factors = tuple[np.ndarray, ...]
"""A matrix, whole or as the product of several, each (directions, rows, columns)."""


@dataclasses.dataclass(frozen=True)
class RecurrentLayer:
    """A GRU or LSTM node whose weights are stored in the file.

    Attributes:
        node: The node; it reads sequences (steps, batch, inputs).
        of_inputs: Matrix that multiplies the inputs, (directions, gates x units, inputs).
        of_states: Matrix that multiplies the state, (directions, gates x units, units).
        bias: Biases of both products, (directions, 2 x gates x units).
    """

    node: onnx.NodeProto
    of_inputs: Factors
    of_states: Factors
    bias: np.ndarray

    @property
    def units(self) -> int:
        """Width of the state."""
        return int(self.of_states[-1].shape[2])

    @property
    def inputs(self) -> int:
        """Width of the inputs."""
        return int(self.of_inputs[-1].shape[2])

    @property
    def whole(self) -> bool:
        """Whether no matrix is a product of factors."""
        return len(self.of_inputs) == len(self.of_states) == 1

    @property
    def reversed(self) -> tuple[bool, ...]:
        """For each direction, whether it begins at the last step."""
        return _REVERSED[attributes(self.node).get("direction", b"forward").decode()]

    @property
    def first_state(self) -> str:
        """Name of the state that the layer begins with, (directions, batch, units); empty for zeros."""
        return operand(self.node, _STATE)

    @classmethod
    def read(cls, node: onnx.NodeProto, values: Constants) -> RecurrentLayer | None:
        """The layer of a node.

        None where a matrix is computed as the file runs or holds what INT8 cannot, and where the batch comes
        first.
        """
        if attributes(node).get("layout", _TIME_FIRST) != _TIME_FIRST:
            return None
        of_inputs, of_states = (values.factors(name) for name in node.input[1:3])
        if of_inputs is None or of_states is None:
            return None
        if any(why_too_coarse(torch.tensor(part), by_sample=False) for part in (*of_inputs, *of_states)):
            return None
        shape = (len(of_states[0]), 2 * of_states[0].shape[1])
        name = operand(node, _BIAS)
        bias = values.read(name) if name else np.zeros(shape, np.float32)
        return None if bias is None else cls(node, of_inputs, of_states, bias)

    def is_torch_gru(self) -> bool:
        """Whether it is a GRU as PyTorch has it, and takes as many steps for each sample."""
        given = attributes(self.node)
        return (
            self.node.op_type == "GRU"
            and given.get("linear_before_reset") == 1
            and not operand(self.node, _LENGTHS)
            and given.keys().isdisjoint(("activations", "clip"))
        )


class Constants:
    """Values of a graph that are known before any input.

    Args:
        graph: The graph.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._known: dict[str, np.ndarray | None] = {}
        self._makers = {name: node for node in graph.node for name in node.output}

    def read(self, name: str) -> np.ndarray | None:
        """A value that is stored, or split and joined from what is; None for any other."""
        if name not in self._known:
            stored = self._stored.get(name)
            self._known[name] = self._arranged(name) if stored is None else numpy_helper.to_array(stored)
        return self._known[name]

    def factors(self, name: str) -> Factors | None:
        """A matrix, as two factors where it is the product of stored ones; None for any other.

        Nodes behind a product may split its rows and join them, as the order of the gates asks for.
        """
        whole = self.read(name)
        if whole is not None:
            return (whole,)
        product = self._product(name)
        return None if product is None else (product[0], product[1][None])

    def _arranged(self, name: str) -> np.ndarray | None:
        node = self._makers.get(name)
        if node is None or node.op_type not in _REARRANGING:
            return None
        read = {part: array for part in node.input if (array := self.read(part)) is not None}
        return _run(node, read, name) if len(read) == len(set(filter(None, node.input))) else None

    def _product(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """The factors of a value that cannot be read; the rows of the left one are in the value's order."""
        node = self._makers.get(name)
        if node is None:
            return None
        if node.op_type == "MatMul":
            left, right = map(self.read, node.input)
            return None if left is None or right is None else (left, right)
        if node.op_type not in _REARRANGING:
            return None
        lefts: dict[str, np.ndarray] = {}
        wholes: dict[str, np.ndarray] = {}
        rights: list[np.ndarray] = []
        for part in filter(None, node.input):
            array = self.read(part)
            if array is not None:
                lefts[part] = wholes[part] = array
                continue
            product = self._product(part)
            if product is None:
                return None
            lefts[part], wholes[part] = product[0], product[0] @ product[1]
            rights.append(product[1])
        if any(right is not rights[0] for right in rights):
            return None
        moved, whole = _run(node, lefts, name), _run(node, wholes, name)
        return (moved, rights[0]) if _multiply_to(moved, rights[0], whole) else None


_REARRANGING = frozenset(
    {"Concat", "Constant", "Identity", "Reshape", "Slice", "Split", "Transpose", "Unsqueeze"}
)
"""Operators that only put values elsewhere."""


def _run(node: onnx.NodeProto, values: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The output of that name of a node."""
    outputs: Any = ReferenceEvaluator(node).run(None, dict(values))
    return np.asarray(outputs[list(node.output).index(name)])


def _multiply_to(left: np.ndarray, right: np.ndarray, whole: np.ndarray) -> bool:
    """Whether two factors are those of a value, which they are where only rows were moved."""
    if left.ndim < 2 or left.shape[-1] != len(right):
        return False
    product = left @ right
    return product.shape == whole.shape and bool(np.allclose(product, whole, atol=1e-5 * np.abs(whole).max()))


def attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    """A node's attributes by name."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def operand(node: onnx.NodeProto, index: int) -> str:
    """Name of an input; empty where it is left out."""
    return str(node.input[index]) if len(node.input) > index else ""
