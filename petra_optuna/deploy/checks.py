"""What a lowered file promises, checked on the file and on the graph that the session runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import onnx

from petra_optuna.errors import LoweringFailed

FLOAT_KERNELS = frozenset(
    {"Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "TransposeMatMul"}
)
INT8_KERNELS = frozenset(
    {
        "QLinearConv",
        "QGemm",
        "QLinearMatMul",
        "ConvInteger",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
    }
)
"""Kernels that multiply with weights; what runs between them does not count."""

STATIC = "int8_static"
DYNAMIC = "int8_dynamic"


def count(kernels: Mapping[str, int], kinds: frozenset[str]) -> int:
    """How many of the kernels are of these kinds."""
    return sum(number for kind, number in kernels.items() if kind in kinds)


def check_kernels(kernels: Counter[str], precision: str, report: Mapping[str, Any]) -> None:
    """The session must run in INT8 what the conversion says it quantised.

    Args:
        kernels: Operator types in the session's optimised graph.
        precision: As the conversion reports it; only the INT8 ones promise kernels.
        report: Of the conversion; ``left_float`` lists what it left, with ``op`` and ``reason``.

    Raises:
        LoweringFailed: When no INT8 kernel runs, or after static quantisation a float one does that
            the report does not allow. (With QInt8 activations most convolutions silently do.)
    """
    if precision not in (STATIC, DYNAMIC):
        return
    integer = count(kernels, INT8_KERNELS)
    if integer == 0:
        raise LoweringFailed(f"no INT8 kernel runs in the {precision} file; it runs {_listed(kernels)}")
    allowed = sum(1 for item in report.get("left_float", ()) if item["op"] in FLOAT_KERNELS)
    floating = count(kernels, FLOAT_KERNELS)
    if precision == STATIC and floating > allowed:
        raise LoweringFailed(
            f"{floating} of {floating + integer} weighted kernels run in float in the INT8 file, "
            f"{allowed} are allowed; it runs {_listed(kernels)}"
        )


def check_batch_norms(proto: onnx.ModelProto) -> None:
    """No batch norm stands where it folds into the layer before it.

    After an addition, or beside another reader of the layer's output, it cannot be folded and is legal.

    Raises:
        LoweringFailed: Naming the batch norm.
    """
    graph = proto.graph
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(output.name for output in graph.output)
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type != "BatchNormalization":
            continue
        before = makers.get(node.input[0])
        if before is not None and before.op_type in ("Conv", "Gemm") and readers[node.input[0]] == 1:
            raise LoweringFailed(
                f"batch norm {node.name!r} is not folded into the {before.op_type} before it"
            )


def check_weights(proto: onnx.ModelProto) -> None:
    """No weight is stored and not used, and none is stored in float to be quantised when loaded.

    Raises:
        LoweringFailed: Naming the weight.
    """
    graph = proto.graph
    used = {name for node in graph.node for name in node.input}
    used |= {output.name for output in graph.output}
    subgraphs = any(attribute.HasField("g") for node in graph.node for attribute in node.attribute)
    stored = {tensor.name for tensor in graph.initializer}
    unused = sorted(stored - used)
    if unused and not subgraphs:
        raise LoweringFailed(f"the file stores {unused[0]!r}, which nothing reads")
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in stored:
            raise LoweringFailed(f"the file stores a float copy of the quantised weight {node.input[0]!r}")


def _listed(kernels: Counter[str]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in kernels.most_common(6))
