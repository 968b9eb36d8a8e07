"""Dynamic INT8 in ONNX Runtime: weights of linear layers in the file, activations while it runs."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import ClassVar

import onnx
from onnxruntime import quantization as ort

from petra_optuna.errors import OperationFailed, one_line
from petra_optuna.operations.context import Context
from petra_optuna.pipeline import Applied, Kind, Operation

_LINEAR = ("Gemm", "MatMul")


@dataclasses.dataclass(frozen=True)
class QuantizeDynamic(Operation):
    """INT8 weights per output feature in linear layers; convolutions stay in float.

    Needs no calibration. ONNX Runtime's integer convolution without static ranges is slower than the
    float one, so it is not used.
    """

    name: ClassVar[str] = "dynamic"
    code: ClassVar[str] = "PDQ"
    aliases: ClassVar[tuple[str, ...]] = ("QD",)
    kind: ClassVar[Kind] = "conversion"
    weight_bytes: ClassVar[float] = 1.0

    def apply(self, model: onnx.ModelProto, context: Context) -> Applied[onnx.ModelProto]:
        """Return the graph with quantised linear layers; the report counts them.

        Raises:
            OperationFailed: When the graph has no linear layer with a stored weight, or ONNX Runtime's tool
                fails.
        """
        copied = onnx.ModelProto()
        copied.CopyFrom(model)
        # The tool fails on the shapes that the exporter stores.
        del copied.graph.value_info[:]
        copied.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "quantized.onnx")
            try:
                ort.quantize_dynamic(
                    copied,
                    path,
                    op_types_to_quantize=list(_LINEAR),
                    per_channel=True,
                    weight_type=ort.QuantType.QInt8,
                )
            except (RuntimeError, ValueError, TypeError, AssertionError) as error:
                raise OperationFailed(f"dynamic: {type(error).__name__}: {one_line(error)}") from error
            quantized = onnx.load(path)
        count = sum(1 for node in quantized.graph.node if node.op_type == "MatMulInteger")
        if count == 0:
            raise OperationFailed("dynamic: the model has no linear layer to quantise")
        report = {"changed": True, "precision": "int8_dynamic", "quantized_weights": count}
        return Applied(quantized, report)
