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


@dataclasses.dataclass(frozen=True)
class RecurrentLayer:
    """A GRU or LSTM node whose weights are stored in the file.

    Attributes:
        node: The node; it reads sequences (steps, batch, inputs).
        of_inputs: Matrices that multiply the inputs, (directions, gates x units, inputs).
        of_states: Matrices that multiply the state, (directions, gates x units, units).
        bias: Biases of both products, (directions, 2 x gates x units).
    """

    node: onnx.NodeProto
    of_inputs: np.ndarray
    of_states: np.ndarray
    bias: np.ndarray

    @property
    def units(self) -> int:
        """Width of the state."""
        return int(self.of_states.shape[2])

    @property
    def inputs(self) -> int:
        """Width of the inputs."""
        return int(self.of_inputs.shape[2])

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

        None where a matrix is computed as the file runs, is the product of stored factors or holds what INT8
        cannot, and where the batch comes first.
        """
        if attributes(node).get("layout", _TIME_FIRST) != _TIME_FIRST:
            return None
        of_inputs, of_states = (values.read(name) for name in node.input[1:3])
        if of_inputs is None or of_states is None:
            return None
        if any(why_too_coarse(torch.tensor(part), by_sample=False) for part in (of_inputs, of_states)):
            return None
        shape = (len(of_states), 2 * of_states.shape[1])
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
        self._makers = {name: node for node in graph.node for name in node.output}

    def read(self, name: str) -> np.ndarray | None:
        """A value that is stored, or split and joined from what is; None for any other."""
        if name in self._stored:
            return numpy_helper.to_array(self._stored[name])
        node = self._makers.get(name)
        if node is None or node.op_type not in _REARRANGING:
            return None
        read = {part: self.read(part) for part in node.input if part}
        if any(array is None for array in read.values()):
            return None
        outputs: Any = ReferenceEvaluator(node).run(None, read)
        return np.asarray(outputs[list(node.output).index(name)])


_REARRANGING = frozenset(
    {"Concat", "Constant", "Identity", "Reshape", "Slice", "Split", "Transpose", "Unsqueeze"}
)
"""Operators that only put values elsewhere. The products of factors are not among them: they stay factors."""


def attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    """A node's attributes by name."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def operand(node: onnx.NodeProto, index: int) -> str:
    """Name of an input; empty where it is left out."""
    return str(node.input[index]) if len(node.input) > index else ""
