"""Static INT8 in ONNX Runtime: weights and activations, ranges from calibration samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import helper
from onnxruntime import quantization as ort

from petra_optuna.errors import OperationFailed, one_line
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.operations.calibration import calibrate
from petra_optuna.operations.context import Context
from petra_optuna.operations.int8_graph import (
    OPERATORS,
    batched_products,
    count_int8_weights,
    feeding_layers,
    int8_nodes,
    rounded_tensors,
    weighted_layers,
)
from petra_optuna.operations.left_float import left_float, nothing_in_int8
from petra_optuna.operations.observed import observed, unfit_nodes
from petra_optuna.operations.outer_nodes import last_layers
from petra_optuna.operations.saturation import weight_bits
from petra_optuna.operations.sensitivity import FloatGroup, SwitchedGraph, worst_layers
from petra_optuna.operations.weight_only import STORED, named, store_int8
from petra_optuna.pipeline import Applied, FloatReason
from petra_optuna.pipeline.nodes import QuantizeStaticNode

_SAMPLES = 256
_BATCH = 32
"""Samples of a calibration batch; the histogram methods hold every intermediate tensor of one at once."""
_QUANTISED_AT_LOAD = ("Conv", "ConvTranspose", "Gemm")
_SENSITIVITY_SAMPLES = 8
"""Samples on which a layer's loss is measured: one run a layer, some 0.1 s each for a ResNet-18."""


@dataclasses.dataclass(frozen=True)
class QuantizeStatic(QuantizeStaticNode):
    """INT8 weights per output channel, unsigned 8-bit activations, as QDQ pairs.

    Activations are unsigned because ONNX Runtime runs most convolutions of a residual network in float on
    x86 where they are signed. Where this machine's kernels saturate, weights take 7 bits (see
    ``saturation``). Recurrent matrices, embedding tables and transposed convolutions are stored in INT8 and
    computed in float. The last layer of a task of values stays in float (``outer_nodes``).

    Example:
        >>> QuantizeStatic(calibration="percentile", keep_float=2).code
        'PTQ'
    """

    def apply(self, model: onnx.ModelProto, context: Context) -> Applied[onnx.ModelProto]:
        """Calibrate on at most 256 calibration samples and return the quantised graph.

        Returns:
            The report holds ``precision``, ``quantized_weights``, ``weight_bits`` of these, ``weight_only``:
            names of weights stored in INT8 and computed in float, ``calibration_samples`` and
            ``left_float``: weights that stay in float, each with its reason.

        Raises:
            OperationFailed: When the graph has no weight to quantise, ONNX Runtime's tool fails, or a repair
                is asked for and no layer helps.
        """
        prepared = named(model)
        layers = weighted_layers(prepared.graph)
        batches = context.calibration_batches(limit=_SAMPLES, batch_size=_BATCH) if layers else ()
        feeds = [to_feeds(inputs) for inputs, _ in batches]
        quantized, reasons = self._quantize(prepared, feeds, context) if layers else (prepared, {})
        floats = {**batched_products(prepared.graph), **reasons}
        weight_only = store_int8(quantized, STORED)
        weights = count_int8_weights(quantized)
        if weights == 0 and not weight_only:
            raise nothing_in_int8(self.name, floats)
        report = {
            "changed": True,
            "precision": "int8_static" if weights else "int8_weights",
            "quantized_weights": weights,
            "weight_bits": weight_bits(),
            "weight_only": list(weight_only),
            "calibration_samples": sum(len(next(iter(batch.values()))) for batch in feeds),
            "left_float": left_float(quantized, STORED, floats),
        }
        return Applied(quantized, report)

    def _quantize(
        self, model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], context: Context
    ) -> tuple[onnx.ModelProto, dict[str, FloatReason]]:
        try:
            values = observed(model, feeds[0])
            unfit = {**last_layers(model.graph, context.regression), **unfit_nodes(model.graph, values)}
            if not weighted_layers(model.graph, unfit):
                return model, unfit
            tensors = rounded_tensors(model.graph, unfit)
            ranges = calibrate(model, feeds, OPERATORS, self.calibration, self.percentile, tensors)
            kept = self._kept(model, feeds[0], ranges, unfit, context.repair)
            reasons = {**unfit, **_reasons(kept)}
            return _shield_floats(_with_pairs(model, ranges, reasons)), reasons
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise OperationFailed(f"static: {type(error).__name__}: {one_line(error)}") from error

    def _kept(
        self,
        model: onnx.ModelProto,
        feeds: Mapping[str, np.ndarray],
        ranges: ort.TensorsData,
        unfit: Collection[str],
        repair: bool,
    ) -> tuple[FloatGroup, ...]:
        layers = feeding_layers(model.graph, unfit)
        limit = len(layers) - 1
        count = min(self.keep_float, limit)
        if count == 0 and not repair:
            return ()
        quantized = _with_pairs(model, ranges, unfit, keep_activations=True)
        few = {name: array[:_SENSITIVITY_SAMPLES] for name, array in feeds.items()}
        switched = SwitchedGraph(model, quantized, few)

        def rounded(left: frozenset[str]) -> set[str]:
            return rounded_tensors(model.graph, {*unfit, *left})

        kept = worst_layers(switched, layers, rounded, count) if count else ()
        if not repair:
            return kept
        names = [name for group in kept for name in group.names]
        more = worst_layers(switched, layers, rounded, limit - len(names), names)[:1]
        if not more:
            raise OperationFailed("static: keeping another layer in float does not reduce the error")
        return kept + more


def _with_pairs(
    model: onnx.ModelProto,
    ranges: ort.TensorsData,
    left: Collection[str],
    *,
    keep_activations: bool = False,
) -> onnx.ModelProto:
    """The graph with a QuantizeLinear-DequantizeLinear pair at each tensor that is rounded.

    Args:
        model: Float graph whose nodes have names; it is not changed.
        ranges: Ranges of its tensors.
        left: Names of layers to leave in float.
        keep_activations: Whether a ReLU stays that the range of the tensor before it makes superfluous.
    """
    reduced = {}
    if weight_bits() < 8:
        # Of the weights only: the tool's own switch reduces constants that are added as well.
        reduced = {
            node.input[1]: [{"axis": _output_axis(node), "reduce_range": True}]
            for node in weighted_layers(model.graph, left)
        }
    quantizer = ort.QDQQuantizer(
        model,
        True,
        False,
        ort.QuantType.QInt8,
        ort.QuantType.QUInt8,
        # The tool writes into the ranges.
        ort.TensorsData(ort.CalibrationMethod.MinMax, dict(ranges.items())),
        [node.name for node in int8_nodes(model.graph, left)],
        [],
        list(OPERATORS),
        {"TensorQuantOverrides": reduced, "QDQKeepRemovableActivations": keep_activations},
    )
    quantized: onnx.ModelProto = quantizer.quantize_model()
    return quantized


def _shield_floats(model: onnx.ModelProto) -> onnx.ModelProto:
    """A ``Sum`` of one value in front of each layer in float, in place.

    Else ONNX Runtime quantises a float layer between two rounded tensors when it loads the file, with one
    scale for the whole weight (its ``WeightBiasQuantization``).
    """
    rounded = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    nodes = []
    for node in model.graph.node:
        shielded = onnx.NodeProto()
        shielded.CopyFrom(node)
        if node.op_type in _QUANTISED_AT_LOAD and node.input[1] not in rounded:
            shielded.input[0] = f"{node.name}_input"
            nodes.append(helper.make_node("Sum", [node.input[0]], [shielded.input[0]]))
        nodes.append(shielded)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _output_axis(node: onnx.NodeProto) -> int:
    if node.op_type == "Conv":
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if transposed else 1


def _reasons(kept: tuple[FloatGroup, ...]) -> dict[str, FloatReason]:
    """By layer, why it is in float."""
    reasons = {}
    for group in kept:
        others = "" if len(group.names) == 1 else f" with {len(group.names) - 1} more"
        text = f"kept in float: the output's error falls from {group.before:.2%} to {group.after:.2%}{others}"
        reason = FloatReason(reason=text, error_before=group.before, error_after=group.after)
        reasons.update(dict.fromkeys(group.names, reason))
    return reasons
