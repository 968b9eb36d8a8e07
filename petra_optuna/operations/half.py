"""Half precision: weights and arithmetic in float16, inputs and outputs in float32."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.transformers.float16 import convert_float_to_float16

from petra_optuna.errors import OperationFailed
from petra_optuna.operations.context import Context
from petra_optuna.pipeline import Applied
from petra_optuna.pipeline.nodes import HalfNode


@dataclasses.dataclass(frozen=True)
class Half(HalfNode):
    """Every float32 weight becomes float16: half the file, no speed on CPUs.

    Values below the smallest positive float16 are raised to it; a weight beyond the largest is refused.
    """

    def apply(self, model: onnx.ModelProto, context: Context) -> Applied[onnx.ModelProto]:
        """Return the graph in float16; the report counts the weights converted and those left.

        Raises:
            OperationFailed: When the graph stores no float32 weight, or one that float16 cannot hold.
        """
        before = _stored(model, TensorProto.FLOAT)
        if before == 0:
            raise OperationFailed("fp16: the model stores no float32 weight")
        _refuse_overflow(model)
        copied = onnx.ModelProto()
        copied.CopyFrom(model)
        with warnings.catch_warnings():
            # It warns of every value that it rounds.
            warnings.simplefilter("ignore")
            converted = convert_float_to_float16(copied, keep_io_types=True)
        after = _stored(converted, TensorProto.FLOAT)
        if after >= before:
            raise OperationFailed("fp16: none of the model's weights could be converted")
        report = {
            "changed": True,
            "precision": "float16",
            "float16_weights": _stored(converted, TensorProto.FLOAT16),
            "float32_weights": after,
        }
        return Applied(converted, report)


def _stored(model: onnx.ModelProto, kind: int) -> int:
    """Number of values stored in tensors of this type."""
    tensors = (tensor for tensor in model.graph.initializer if tensor.data_type == kind)
    return sum(int(np.prod(tensor.dims)) for tensor in tensors)


def _refuse_overflow(model: onnx.ModelProto) -> None:
    limit = float(np.finfo(np.float16).max)
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        largest = float(np.abs(onnx.numpy_helper.to_array(tensor)).max(initial=0.0))
        if largest > limit:
            raise OperationFailed(f"fp16: {tensor.name!r} holds {largest:.3g}, float16 ends at {limit:g}")
