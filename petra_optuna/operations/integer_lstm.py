"""An LSTM in INT8: ONNX Runtime's own operator, which rounds inputs and states as it runs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from petra_optuna.operations.recurrent_layer import RecurrentLayer, operand
from petra_optuna.operations.saturation import LIMITS, weight_bits
from petra_optuna.operations.weight_only import round_symmetric

DOMAIN = "com.microsoft"
OPERATOR = "DynamicQuantizeLSTM"
_UNKNOWN = ("layout",)
"""Attributes of LSTM that the operator does not have."""
_INPUTS = 8


def integer_lstm(layer: RecurrentLayer) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The node and the stored values that take the place of an LSTM node.

    Args:
        layer: The LSTM, with whole matrices.
    """
    node = layer.node
    inputs = [operand(node, index) for index in range(_INPUTS)]
    stored, scaling = [], []
    for index, matrix in ((1, layer.of_inputs[0]), (2, layer.of_states[0])):
        prefix = f"{node.name}_{'inputs' if index == 1 else 'states'}"
        parts = [round_symmetric(part.T, 1, LIMITS[weight_bits()]) for part in matrix]
        integers, scales = (np.stack(arrays) for arrays in zip(*parts, strict=True))
        values = {"int8": integers, "int8_scale": scales[:, 0], "zero": np.zeros(matrix.shape[:2], np.int8)}
        stored += [
            numpy_helper.from_array(np.ascontiguousarray(array), f"{prefix}_{name}")
            for name, array in values.items()
        ]
        inputs[index] = f"{prefix}_int8"
        scaling += [f"{prefix}_int8_scale", f"{prefix}_zero"]
    integer = helper.make_node(OPERATOR, [*inputs, *scaling], node.output, name=node.name, domain=DOMAIN)
    integer.attribute.extend(item for item in node.attribute if item.name not in _UNKNOWN)
    return [integer], stored
