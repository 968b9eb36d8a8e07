"""A GRU as a loop of integer products, since ONNX Runtime has no quantised GRU.

The products with the inputs of all steps come first, in one call. An ONNX ``Scan`` then takes one step after
the other: it rounds the state, multiplies it with the INT8 matrix and applies the gates in float. The number
of steps stays dynamic. ONNX Runtime joins rounding, product and bias into one kernel. Where a matrix is a
product of factors, there is a kernel for each: fewer multiplications, and fewer bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from petra_optuna.operations.recurrent_layer import Factors, RecurrentLayer
from petra_optuna.operations.saturation import LIMITS, weight_bits
from petra_optuna.operations.weight_only import SCALE_SUFFIX, round_symmetric

_STEP: tuple[tuple[str, str, str, Mapping[str, Any]], ...] = (
    ("Split", "product gate_sizes", "state_gates state_new", {"axis": 1}),
    ("Add", "state_gates gates", "gate_sums", {}),
    ("Sigmoid", "gate_sums", "open_gates", {}),
    ("Split", "open_gates half_sizes", "update reset", {"axis": 1}),
    ("Mul", "reset state_new", "reset_new", {}),
    ("Add", "reset_new new", "candidate_sum", {}),
    ("Tanh", "candidate_sum", "candidate", {}),
    ("Sub", "state candidate", "difference", {}),
    ("Mul", "update difference", "kept", {}),
    ("Add", "candidate kept", "next", {}),
    ("Identity", "next", "output", {}),
)
"""Operators of a step behind its product: ``candidate + update * (state - candidate)`` is the next state."""

_OUTER = ("gate_sizes", "half_sizes")
"""Values that all steps read from outside the loop."""

_PRODUCT = (
    *("weight_int8", "weight_int8_scale", "bias"),
    *("rounded", "step", "zero", "sums", "floats", "scale", "scaled", "product"),
)
"""Names of what an integer product stores and computes."""

_INNER = "inner_"
"""Before the names of the right factor's product, which is taken first."""


class GruSteps:
    """The nodes and stored values that take the place of one GRU node.

    Args:
        layer: The GRU, with ``linear_before_reset`` and PyTorch's activations.
        integer_inputs: Whether the products with the inputs are integer products too; else they are in float,
            with weights that are stored in INT8.

    Attributes:
        nodes: Nodes in the order in which they run.
        stored: Stored values.
        float_weights: Names of the matrices that are stored in INT8 and multiplied in float.
        float_products: Names of the nodes that multiply with them.
    """

    def __init__(self, layer: RecurrentLayer, *, integer_inputs: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.float_weights: list[str] = []
        self.float_products: list[str] = []
        self._layer = layer
        self._integer_inputs = integer_inputs
        self._store("gate_sizes", np.array([2 * layer.units, layer.units]))
        self._store("half_sizes", np.array([layer.units, layer.units]))
        self._store("units", np.array([layer.units]))
        self._store("axis_0", np.array([0]))
        self._store("axis_1", np.array([1]))
        states = self._first_states()
        outputs, lasts = zip(*map(self._direction, range(len(states)), states), strict=True)
        for name, parts, axis in zip(layer.node.output, (outputs, lasts), (1, 0), strict=False):
            if name:
                self._join(parts, axis, name)

    def _first_states(self) -> list[str]:
        """One state (batch, units) for each direction."""
        layer, count = self._layer, len(self._layer.reversed)
        states = [self._own(f"first_state_{index}") for index in range(count)]
        if layer.first_state:
            parts = [f"{state}_apart" for state in states]
            self._add("Split", [layer.first_state], parts, axis=0, num_outputs=count)
            for part, state in zip(parts, states, strict=True):
                self._add("Squeeze", [part, self._own("axis_0")], [state])
            return states
        self._store("zero", np.zeros((1, 1), np.float32))
        self._add("Shape", [layer.node.input[0]], [self._own("batch")], start=1, end=2)
        self._add("Concat", [self._own("batch"), self._own("units")], [self._own("state_shape")], axis=0)
        for state in states:
            self._add("Expand", [self._own("zero"), self._own("state_shape")], [state])
        return states

    def _direction(self, index: int, state: str) -> tuple[str, str]:
        """Outputs (steps, batch, units) and last state (batch, units) of one direction."""
        layer = self._layer
        of_inputs, of_states = np.split(layer.bias[index].copy(), 2)
        # Only what is added to the product of the candidate must be there before the reset gate.
        joined = slice(0, 2 * layer.units)
        of_inputs[joined] += of_states[joined]
        of_states[joined] = 0
        inputs = self._input_products(index, of_inputs)
        gates, new, last, outputs = (
            self._own(f"{name}_{index}") for name in ("input_gates", "input_new", "last_state", "outputs")
        )
        self._add("Split", [inputs, self._own("gate_sizes")], [gates, new], axis=2)
        backwards = int(layer.reversed[index])
        self._add(
            "Scan",
            [state, gates, new],
            [last, outputs],
            body=self._step(index, of_states),
            num_scan_inputs=2,
            scan_input_directions=[backwards, backwards],
            scan_output_directions=[backwards],
        )
        return outputs, last

    def _input_products(self, index: int, bias: np.ndarray) -> str:
        """Products of the inputs of all steps with their bias, (steps, batch, 3 x units)."""
        values, factors = self._layer.node.input[0], _of_direction(self._layer.of_inputs, index)
        if self._integer_inputs:
            product, nodes = self._integer_product(values, f"input_{index}", factors, bias)
            self.nodes += nodes
            return product
        for number, matrix in reversed(list(enumerate(factors))):
            values = self._float_product(values, f"{_INNER * number}input_{index}", matrix)
        added = f"{values}_sum"
        self._store(f"input_bias_{index}", bias)
        self._add("Add", [values, self._own(f"input_bias_{index}")], [added])
        return added

    def _float_product(self, values: str, name: str, matrix: np.ndarray) -> str:
        """Name of the product with a matrix (outputs, inputs) that is stored in INT8."""
        weight, product = self._own(f"{name}_weight"), self._own(f"{name}_product")
        scale, steps = f"{weight}{SCALE_SUFFIX}", f"{weight}_int8_steps"
        integers, scales = round_symmetric(matrix.T, 1, LIMITS[8])
        self._keep(f"{weight}_int8", integers)
        self._keep(scale, scales)
        self._add("Cast", [f"{weight}_int8"], [steps], to=TensorProto.FLOAT)
        self._add("Mul", [steps, scale], [weight])
        self._add("MatMul", [values, weight], [product])
        self.float_weights.append(weight)
        self.float_products.append(product)
        return product

    def _step(self, index: int, bias: np.ndarray) -> onnx.GraphProto:
        """The body of the loop: one state and one step's products to the next state."""
        prefix = self._own(f"step_{index}")
        names = {
            name: self._own(name) if name in _OUTER else f"{prefix}_{name}"
            for _, taken, given, _ in _STEP
            for name in f"{taken} {given}".split()
        }
        names["product"], nodes = self._integer_product(
            names["state"], f"state_{index}", _of_direction(self._layer.of_states, index), bias
        )
        for operator, taken, given, attributes in _STEP:
            inputs, outputs = ([names[name] for name in text.split()] for text in (taken, given))
            nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], **attributes))
        units = self._layer.units
        widths = {"state": units, "gates": 2 * units, "new": units, "next": units, "output": units}
        ends = [
            helper.make_tensor_value_info(names[name], TensorProto.FLOAT, ["batch", width])
            for name, width in widths.items()
        ]
        return helper.make_graph(nodes, prefix, ends[:3], ends[3:])

    def _integer_product(
        self, values: str, name: str, factors: Sequence[np.ndarray], bias: np.ndarray
    ) -> tuple[str, list[onnx.NodeProto]]:
        """Name of the product with a matrix (outputs, inputs) and its bias, and the nodes that compute it.

        They stand in the order that ONNX Runtime joins into one kernel, one for each factor.
        """
        nodes: list[onnx.NodeProto] = []
        for number, matrix in reversed(list(enumerate(factors))):
            integers, scales = round_symmetric(matrix.T, 1, LIMITS[weight_bits()])
            weight, steps, added, rounded, step, zero, sums, floats, scale, scaled, product = (
                self._own(f"{_INNER * number}{name}_{part}") for part in _PRODUCT
            )
            self._keep(weight, integers)
            self._keep(steps, scales[0])
            rows: list[tuple[str, list[str], list[str], Mapping[str, Any]]] = [
                ("DynamicQuantizeLinear", [values], [rounded, step, zero], {}),
                ("MatMulInteger", [rounded, weight, zero], [sums], {}),
                ("Cast", [sums], [floats], {"to": TensorProto.FLOAT}),
                ("Mul", [step, steps], [scale], {}),
                ("Mul", [floats, scale], [scaled], {}),
            ]
            values = scaled
            if number == 0:
                self._keep(added, bias)
                rows.append(("Add", [scaled, added], [product], {}))
                values = product
            nodes += [
                helper.make_node(operator, taken, given, name=given[0], **attributes)
                for operator, taken, given, attributes in rows
            ]
        return values, nodes

    def _join(self, parts: Sequence[str], axis: int, output: str) -> None:
        """Put what the directions give along a new axis."""
        apart = [f"{part}_apart" for part in parts]
        for part, name in zip(parts, apart, strict=True):
            self._add("Unsqueeze", [part, self._own(f"axis_{axis}")], [name])
        self._add("Concat", apart, [output], axis=axis)

    def _store(self, name: str, values: np.ndarray) -> None:
        self._keep(self._own(name), values)

    def _keep(self, name: str, values: np.ndarray) -> None:
        self.stored.append(numpy_helper.from_array(np.ascontiguousarray(values), name))

    def _add(self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], **attributes))

    def _own(self, name: str) -> str:
        return f"{self._layer.node.name}_{name}"


def _of_direction(factors: Factors, index: int) -> list[np.ndarray]:
    """Factors (rows, columns) of one direction."""
    return [factor[index] for factor in factors]
