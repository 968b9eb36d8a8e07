"""Static INT8 in ONNX Runtime: weights and activations, ranges from calibration samples."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import onnx
from onnxruntime import quantization as ort
from optuna.distributions import CategoricalDistribution

from petra_optuna.errors import OperationFailed, one_line
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.operations.context import Context
from petra_optuna.pipeline import Applied, Kind, Operation, When

_SAMPLES = 256
_BATCH = 32
"""The histogram methods hold every intermediate tensor of a batch at once."""

_WEIGHTED = ("Conv", "Gemm", "MatMul")
_BETWEEN = (
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Flatten",
    "Gather",
    "GlobalAveragePool",
    "LeakyRelu",
    "MaxPool",
    "Mul",
    "Pad",
    "Relu",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
"""What lies between weighted layers and has an INT8 kernel, so that residual blocks stay in INT8.

Normalisations and softmax have none, or lose precision for no speed.
"""

_METHODS = {
    "minmax": ort.CalibrationMethod.MinMax,
    "percentile": ort.CalibrationMethod.Percentile,
    "entropy": ort.CalibrationMethod.Entropy,
}


@dataclasses.dataclass(frozen=True)
class QuantizeStatic(Operation):
    """INT8 weights per output channel, unsigned 8-bit activations, as QDQ pairs.

    Unsigned activations are no matter of taste: with signed ones ONNX Runtime runs most convolutions
    of a residual network in float on x86.

    Attributes:
        calibration: How ranges follow from the samples: their extremes, their percentiles, or the range
            of least relative entropy (arXiv 2004.09602, section 3.3).
        percentile: Share of the values, in percent, that the range holds.
    """

    name: ClassVar[str] = "static"
    code: ClassVar[str] = "PTQ"
    aliases: ClassVar[tuple[str, ...]] = ("QS",)
    kind: ClassVar[Kind] = "conversion"
    weight_bytes: ClassVar[float] = 1.0

    calibration: Annotated[str, CategoricalDistribution(("minmax", "percentile", "entropy"))] = "minmax"
    percentile: Annotated[
        float, CategoricalDistribution((99.9, 99.99, 99.999)), When("calibration", ("percentile",))
    ] = 99.99

    def apply(self, model: onnx.ModelProto, context: Context) -> Applied[onnx.ModelProto]:
        """Calibrate on at most 256 calibration samples and return the quantised graph.

        Returns:
            The report holds ``precision``, ``quantized_weights``, ``calibration_samples`` and
            ``left_float``: weighted layers that stay in float, each with its reason.

        Raises:
            OperationFailed: When the graph has no layer to quantise or ONNX Runtime's tool fails.
        """
        if not any(node.op_type in _WEIGHTED for node in model.graph.node):
            raise OperationFailed(f"static: the model has no {', '.join(_WEIGHTED)} to quantise")
        batches = context.calibration_batches(limit=_SAMPLES, batch_size=_BATCH)
        feeds = [to_feeds(inputs) for inputs, _ in batches]
        quantized = self._quantize(model, feeds)
        weights, left = _audit(quantized)
        if weights == 0:
            raise OperationFailed("static: none of the model's weights could be quantised")
        samples = sum(len(next(iter(batch.values()))) for batch in feeds)
        report = {
            "changed": True,
            "precision": "int8_static",
            "quantized_weights": weights,
            "calibration_samples": samples,
            "left_float": left,
        }
        return Applied(quantized, report)

    def _quantize(self, model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> onnx.ModelProto:
        extra = {"CalibStridedMinMax": 1, "CalibPercentile": self.percentile}
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            path = Path(folder, "quantized.onnx")
            try:
                ort.quantize_static(
                    _prepared(model),
                    path,
                    _Reader(feeds),
                    quant_format=ort.QuantFormat.QDQ,
                    op_types_to_quantize=[*_WEIGHTED, *_BETWEEN],
                    per_channel=True,
                    activation_type=ort.QuantType.QUInt8,
                    weight_type=ort.QuantType.QInt8,
                    calibrate_method=_METHODS[self.calibration],
                    extra_options=extra,
                )
            except (RuntimeError, ValueError, TypeError, AssertionError) as error:
                raise OperationFailed(f"static: {type(error).__name__}: {one_line(error)}") from error
            return onnx.load(path)


class _Reader:
    """ONNX Runtime's ``CalibrationDataReader``, by its methods.

    It hands out one batch a range, so that the tool reduces each batch before it reads the next.
    """

    def __init__(self, feeds: Sequence[dict[str, np.ndarray]]) -> None:
        self._feeds = feeds
        self._rest = iter(feeds)

    def __len__(self) -> int:
        return len(self._feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._rest = iter(self._feeds[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rest, None)


def _prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy, marked as preprocessed: the exporter has folded and inferred all there is."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    del copied.graph.value_info[:]
    copied.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    return copied


def _audit(model: onnx.ModelProto) -> tuple[int, list[dict[str, Any]]]:
    """Number of quantised weights, and the weighted layers that may stay in float.

    One that the tool left for no reason of ours is not listed, so the check of the file refuses it.
    """
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    weights, left = 0, []
    for node in graph.node:
        if node.op_type not in (*_WEIGHTED, "ConvTranspose"):
            continue
        maker = makers.get(node.input[1])
        if maker is None or maker.op_type != "DequantizeLinear":
            reason = _excuse(node, stored)
            if reason is not None:
                left.append({"name": node.name, "op": node.op_type, "reason": reason})
        elif maker.input[0] in stored:
            weights += 1
    return weights, left


def _excuse(node: onnx.NodeProto, stored: set[str]) -> str | None:
    if node.op_type == "ConvTranspose":
        return "ONNX Runtime has no INT8 kernel for it"
    return None if node.input[1] in stored else "its second operand is no weight"
