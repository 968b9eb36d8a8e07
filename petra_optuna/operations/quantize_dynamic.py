"""Dynamic INT8 in ONNX Runtime: weights are rounded in the file, activations while it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

import onnx
from onnxruntime import quantization as ort

from petra_optuna.errors import OperationFailed, one_line
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.operations.context import Context
from petra_optuna.operations.int8_graph import batched_products
from petra_optuna.operations.left_float import left_float, nothing_in_int8
from petra_optuna.operations.observed import coarse_inputs, observed
from petra_optuna.operations.outer_nodes import last_layers
from petra_optuna.operations.recurrent_int8 import LEAST_UNITS, coarse_sequences, compute_in_int8
from petra_optuna.operations.saturation import weight_bits
from petra_optuna.operations.weight_only import STORED, derived, named, store_int8
from petra_optuna.pipeline import Applied, FloatReason
from petra_optuna.pipeline.nodes import QuantizeDynamicNode
from petra_optuna.scratch import scratch_folder

_LINEAR = ("Gemm", "MatMul")
_SAMPLES = 32
_PRODUCT_OF_GEMM = "_MatMul"
"""Behind a Gemm's name: the product that ONNX Runtime's tool splits it into."""
_STORED = STORED | {"Conv"}


@dataclasses.dataclass(frozen=True)
class QuantizeDynamic(QuantizeDynamicNode):
    """INT8 arithmetic in linear and recurrent layers; other weights are stored in INT8 and computed in float.

    Ranges come from each batch as the file runs. ONNX Runtime's integer convolution without static ranges is
    slower than the float one, so convolutions compute in float, as do embeddings. A recurrent layer of few
    units (``recurrent_int8.LEAST_UNITS``) computes in float too, as does one of factored matrices, other than
    a GRU of one direction.

    Example:
        >>> QuantizeDynamic().code
        'PDQ'
    """

    def apply(self, model: onnx.ModelProto, context: Context) -> Applied[onnx.ModelProto]:
        """Return the quantised graph.

        Returns:
            The report holds ``precision``, ``quantized_weights`` of linear layers, ``quantized_recurrent``:
            names of the recurrent layers in INT8, ``weight_bits`` of both, ``weight_only``: names of weights
            stored in INT8 and computed in float, and ``left_float``: weights that stay in float, each with
            its reason.

        Raises:
            OperationFailed: When the graph has no weight to quantise or ONNX Runtime's tool fails.
        """
        prepared = named(model)
        left = {**batched_products(prepared.graph), **last_layers(prepared.graph, context.regression)}
        left |= _unfit(prepared, context)
        left |= {f"{name}{_PRODUCT_OF_GEMM}": reason for name, reason in left.items()}
        quantized = _with_integer_products(prepared, left)
        count = sum(1 for node in quantized.graph.node if node.op_type == "MatMulInteger")
        recurrent = compute_in_int8(quantized, left)
        left |= recurrent.left
        weight_only = (*store_int8(quantized, _STORED), *recurrent.weight_only)
        if count == 0 and not weight_only and not recurrent.layers:
            raise nothing_in_int8(self.name, left)
        report = {
            "changed": True,
            "precision": "int8_dynamic" if count or recurrent.layers else "int8_weights",
            "quantized_weights": count,
            "quantized_recurrent": list(recurrent.layers),
            "weight_bits": weight_bits(),
            "weight_only": list(weight_only),
            "left_float": left_float(quantized, _STORED, left),
        }
        return Applied(quantized, report)


def _unfit(model: onnx.ModelProto, context: Context) -> dict[str, FloatReason]:
    """Linear and recurrent layers whose inputs INT8 cannot hold, judged on a batch of calibration samples."""
    if not any(node.op_type in (*_LINEAR, *LEAST_UNITS) for node in model.graph.node):
        return {}
    inputs, _ = next(context.calibration_batches(limit=_SAMPLES, batch_size=_SAMPLES))
    values = observed(model, to_feeds(inputs))
    return {**coarse_inputs(model.graph, values), **coarse_sequences(model.graph, values)}


def _with_integer_products(model: onnx.ModelProto, left: Collection[str]) -> onnx.ModelProto:
    """The graph with linear layers of stored weights in INT8, those named in ``left`` excepted."""
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
                nodes_to_exclude=[
                    *left,
                    *(node.name for node in model.graph.node if node.output[0] in constant),
                ],
            )
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise OperationFailed(f"dynamic: {type(error).__name__}: {one_line(error)}") from error
        return onnx.load(path)
