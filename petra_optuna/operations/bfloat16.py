"""BF16 storage: weights in bfloat16 in the file, arithmetic in what the runtime can."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from petra_optuna.errors import OperationFailed
from petra_optuna.operations.context import Context
from petra_optuna.pipeline import Applied
from petra_optuna.pipeline.nodes import BFloat16Node

_BYTES_OF_NODE = 120
"""What a ``Cast`` and its names add to the file."""


@dataclasses.dataclass(frozen=True)
class BFloat16(BFloat16Node):
    """Matrices and kernels are stored in bfloat16: half the file, in ONNX Runtime at the speed of float32.

    BF16 arithmetic does not load in ONNX Runtime on CPUs, so each weight is cast to float32 when the file is
    loaded. A runtime that computes in BF16 does so with such a file. Weights keep the range of float32 and 8
    bits of precision.
    """

    def apply(self, model: onnx.ModelProto, context: Context) -> Applied[onnx.ModelProto]:
        """Return the graph with its weights rounded to the nearest bfloat16, ties to even.

        Returns:
            The report holds ``precision`` and the number of values stored as ``bfloat16_weights`` and
            ``float32_weights``: biases, and tensors too small for the cast to shorten the file.

        Raises:
            OperationFailed: When the graph stores no weight that is worth it.
        """
        converted = onnx.ModelProto()
        converted.CopyFrom(model)
        del converted.graph.value_info[:]
        stored = [tensor for tensor in converted.graph.initializer if tensor.data_type == TensorProto.FLOAT]
        halved = [tensor for tensor in stored if _is_worth_it(tensor)]
        if not halved:
            raise OperationFailed("bf16: the model stores no float32 matrix or kernel that it would shorten")
        sizes = [int(np.prod(tensor.dims)) for tensor in halved]
        report = {
            "changed": True,
            "precision": "bfloat16_storage",
            "bfloat16_weights": sum(sizes),
            "float32_weights": sum(int(np.prod(tensor.dims)) for tensor in stored) - sum(sizes),
        }
        casts = [_halve(tensor) for tensor in halved]
        nodes = [*casts, *converted.graph.node]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del converted.graph.node[:]
        converted.graph.node.extend(copies)
        return Applied(converted, report)


def _is_worth_it(tensor: onnx.TensorProto) -> bool:
    return len(tensor.dims) > 1 and 2 * int(np.prod(tensor.dims)) > _BYTES_OF_NODE


def _halve(tensor: onnx.TensorProto) -> onnx.NodeProto:
    """Store the tensor in bfloat16, in place, and return the node that restores its name and type."""
    name = tensor.name
    values = torch.from_numpy(numpy_helper.to_array(tensor).copy()).bfloat16().view(torch.int16).numpy()
    stored = helper.make_tensor(
        f"{name}_bf16", TensorProto.BFLOAT16, list(tensor.dims), values.tobytes(), raw=True
    )
    tensor.CopyFrom(stored)
    return helper.make_node("Cast", [stored.name], [name], name=f"{name}_float", to=TensorProto.FLOAT)
