"""Checks of what a lowered file promises, on the file and on the graph that the session runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from petra_optuna.errors import LoweringFailed
from petra_optuna.pipeline import float_layers
from petra_optuna.runtimes import WeightedKernels

BFLOAT16 = "bfloat16"
STATIC = "int8_static"
DYNAMIC = "int8_dynamic"
WEIGHTS = "int8_weights"
_TINY_BYTES = 4096
_LINEAR = ("Gemm", "MatMul")
_PROMISED_IN_INT8 = {STATIC: ("Conv", *_LINEAR), DYNAMIC: _LINEAR}
"""Precision -> the file's operators that run in float only where the conversion's report says so."""


def count(kernels: Mapping[str, int], kinds: frozenset[str]) -> int:
    """Number of the kernels that are of these kinds."""
    return sum(number for kind, number in kernels.items() if kind in kinds)


def check_kernels(
    kernels: Counter[str], weighted: WeightedKernels, precision: str, report: Mapping[str, Any]
) -> None:
    """Check that the session runs in INT8 what the conversion says it quantised.

    Args:
        kernels: Kernels of the graph that the runtime runs, by name.
        weighted: Names of the runtime's kernels that multiply with weights.
        precision: Precision that the conversion reports; static and dynamic INT8 promise INT8 kernels.
        report: Report of the conversion; ``left_float`` lists what it left in float, with ``op`` and
            ``reason``, and with ``error_after`` where that was chosen by measured error.

    Raises:
        LoweringFailed: When no INT8 kernel runs, or a float one does that the report does not allow (with
            QInt8 activations most convolutions silently do), or a layer chosen to be in float is not; when a
            file of another precision computes in BF16, or one of BF16 does not.
    """
    bfloat16 = sum(number for kind, number in kernels.items() if kind.endswith(".bf16"))
    if (bfloat16 > 0) != (precision == BFLOAT16):
        raise LoweringFailed(
            f"{bfloat16} kernels of the {precision} file run in BF16; it runs {_most_common(kernels)}"
        )
    if precision not in _PROMISED_IN_INT8:
        return
    promised = _PROMISED_IN_INT8[precision]
    integer = count(kernels, weighted.int8)
    if integer == 0:
        raise LoweringFailed(f"no INT8 kernel runs in the {precision} file; it runs {_most_common(kernels)}")
    allowed = sum(1 for layer in float_layers(report) if layer["op"] in promised)
    floating = count(kernels, weighted.float if precision == STATIC else weighted.linear)
    if floating > allowed:
        raise LoweringFailed(
            f"{floating} of {floating + integer} weighted kernels run in float in the INT8 file, "
            f"{allowed} are allowed; it runs {_most_common(kernels)}"
        )
    kept = sum(1 for layer in float_layers(report) if "error_after" in layer)
    if floating < kept:
        raise LoweringFailed(
            f"{kept} layers were kept in float, {floating} run so; it runs {_most_common(kernels)}"
        )


def check_batch_norms(proto: onnx.ModelProto) -> None:
    """Check that every batch norm that can be folded into the layer before it has been.

    A batch norm after an addition, beside another reader of the layer's output, after one of several calls of
    a layer or after a layer whose weight is computed cannot be folded and is legal.

    Raises:
        LoweringFailed: When one is left; the text names it.
    """
    graph = proto.graph
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(output.name for output in graph.output)
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type != "BatchNormalization":
            continue
        layer = makers.get(node.input[0])
        if layer is None or layer.op_type not in ("Conv", "Gemm") or layer.input[1] in makers:
            continue
        if readers[node.input[0]] == readers[layer.input[1]] == 1:
            raise LoweringFailed(f"batch norm {node.name!r} is not folded into the {layer.op_type} before it")


def check_weights(proto: onnx.ModelProto, report: Mapping[str, Any] | None = None) -> None:
    """Check that every stored weight is used and that none in INT8 is stored in float as well.

    Args:
        proto: File, parsed.
        report: Report of the conversion; each weight of its ``weight_only`` must be stored in INT8.

    Raises:
        LoweringFailed: When a weight breaks a rule; the text names it.
    """
    graph = proto.graph
    used = {name for node in graph.node for name in node.input}
    used |= {output.name for output in graph.output}
    subgraphs = any(attribute.HasField("g") for node in graph.node for attribute in node.attribute)
    stored = {tensor.name: tensor for tensor in graph.initializer}
    unused = sorted(stored.keys() - used)
    if unused and not subgraphs:
        raise LoweringFailed(f"the file stores {unused[0]!r}, which nothing reads")
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in stored:
            raise LoweringFailed(f"the file stores a float copy of the quantised weight {node.input[0]!r}")
    restored = dict(_restored(graph, stored))
    missing = sorted(set((report or {}).get("weight_only", ())) - restored.keys())
    if missing:
        raise LoweringFailed(f"the file does not store {missing[0]!r} in INT8")
    _refuse_copies(stored.values(), restored)


def stored_bytes(proto: onnx.ModelProto) -> int:
    """Bytes of the stored values of a file, without nodes and names."""
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in proto.graph.initializer)


def check_size(proto: onnx.ModelProto, float_bytes: int, report: Mapping[str, Any]) -> None:
    """Check that a conversion to INT8 made the stored values smaller.

    Scales outweigh the weights of a tiny network, so below 4 KiB any size is legal.

    Args:
        proto: Converted file, parsed.
        float_bytes: ``stored_bytes`` of the float file.
        report: Report of the conversion, empty where there was none.

    Raises:
        LoweringFailed: When they did not become smaller; the text gives both sizes.
    """
    precision, size = report.get("precision"), stored_bytes(proto)
    if precision in (STATIC, DYNAMIC, WEIGHTS) and size >= float_bytes > _TINY_BYTES:
        raise LoweringFailed(f"the {precision} file stores {size} bytes, the float one {float_bytes}")


def _restored(
    graph: onnx.GraphProto, stored: Mapping[str, onnx.TensorProto]
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """Each value restored from stored INT8: its name, its float values and the steps of their rounding."""
    casts = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            integers, scale = stored.get(node.input[0]), stored.get(node.input[1])
        elif node.op_type == "Mul":
            integers, scale = stored.get(casts.get(node.input[0], "")), stored.get(node.input[1])
        else:
            continue
        if integers is None or scale is None or integers.data_type != TensorProto.INT8:
            continue
        values, steps = numpy_helper.to_array(integers), numpy_helper.to_array(scale)
        if steps.ndim == 1:
            axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
            steps = steps.reshape([-1 if index == axis % values.ndim else 1 for index in range(values.ndim)])
        yield node.output[0], (values * steps, steps)


def _refuse_copies(
    tensors: Iterable[onnx.TensorProto], restored: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    """Refuse a float tensor that rounds to a value stored in INT8, whatever its name."""
    for tensor in tensors:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        for name, (values, steps) in restored.items():
            if values.shape != tuple(tensor.dims):
                continue
            if np.all(np.abs(numpy_helper.to_array(tensor) - values) <= 0.51 * steps):
                raise LoweringFailed(
                    f"the file stores {name!r} in INT8 and a float copy of it, {tensor.name!r}"
                )


def _most_common(kernels: Counter[str]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in kernels.most_common(6))
