"""Dynamic INT8 in ONNX Runtime: weights of linear layers in the file, activations while it runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
from onnxruntime import quantization as ort

from petra_optuna.errors import OperationFailed, one_line
from petra_optuna.operations.context import Context
from petra_optuna.operations.left_float import left_float
from petra_optuna.operations.saturation import weight_bits
from petra_optuna.operations.weight_only import STORED, derived, named, store_int8
from petra_optuna.pipeline import Applied
from petra_optuna.pipeline.nodes import QuantizeDynamicNode
from petra_optuna.scratch import scratch_folder

_LINEAR = ("Gemm", "MatMul")
_STORED = STORED | {"Conv"}


@dataclasses.dataclass(frozen=True)
class QuantizeDynamic(QuantizeDynamicNode):
    """INT8 arithmetic in linear layers; all other weights are stored in INT8 and computed in float.

    Needs no calibration. ONNX Runtime's integer convolution without static ranges is slower than the
    float one, so convolutions compute in float, as do recurrent layers and embeddings.

    Example:
        >>> QuantizeDynamic().code
        'PDQ'
    """

    def apply(self, model: onnx.ModelProto, context: Context) -> Applied[onnx.ModelProto]:
        """Return the quantised graph.

        Returns:
            The report holds ``precision``, ``quantized_weights`` of linear layers, ``weight_bits`` of these,
            ``weight_only``: names of weights stored in INT8 and computed in float, and ``left_float``:
            weights that stay in float, each with its reason.

        Raises:
            OperationFailed: When the graph has no weight to quantise or ONNX Runtime's tool fails.
        """
        quantized = _with_integer_products(named(model))
        weight_only = store_int8(quantized, _STORED)
        count = sum(1 for node in quantized.graph.node if node.op_type == "MatMulInteger")
        if count == 0 and not weight_only:
            raise OperationFailed("dynamic: none of the model's weights can be quantised, or it has none")
        report = {
            "changed": True,
            "precision": "int8_dynamic" if count else "int8_weights",
            "quantized_weights": count,
            "weight_bits": weight_bits(),
            "weight_only": list(weight_only),
            "left_float": left_float(quantized, _STORED, {}),
        }
        return Applied(quantized, report)


def _with_integer_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with linear layers of stored weights in INT8."""
    constant = derived(model.graph)
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with scratch_folder("dynamic") as folder:
        path = Path(folder, "quantized.onnx")
        try:
            ort.quantize_dynamic(
                model,
                path,
                op_types_to_quantize=list(_LINEAR),
                per_channel=True,
                reduce_range=weight_bits() < 8,
                weight_type=ort.QuantType.QInt8,
                nodes_to_exclude=[node.name for node in model.graph.node if node.output[0] in constant],
            )
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise OperationFailed(f"dynamic: {type(error).__name__}: {one_line(error)}") from error
        return onnx.load(path)
