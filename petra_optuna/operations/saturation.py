"""The bits that a weight may have on this machine's INT8 kernels.

Where a CPU has no dot product of bytes (VNNI on x86), ONNX Runtime adds pairs of products of an unsigned
and a signed byte in 16 bits, which saturate: 255 * 127 * 2 > 32767. With weights of 7 bits nothing
saturates, since 255 * 64 * 2 = 32640, and the speed is the same. On such a machine 8 bits cost a CIFAR-10
ResNet-18 7.7 points of accuracy and 7 bits 0.1.
"""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

LIMITS = {8: 127, 7: 64}
"""Largest stored weight by bits, as in ONNX Runtime's ``reduce_range``; grids are symmetric."""

_DEPTH = 64
_LARGEST = 255 * 127


@functools.cache
def weight_bits() -> int:
    """8 where the kernels of this machine add without saturation, else 7; run once in a process.

    Measured and not read from the CPU's flags: which kernel runs is ONNX Runtime's decision.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        _largest_products().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (result,) = session.run(None, {"input": np.full((1, _DEPTH), 255, np.float32)})
    return 8 if np.allclose(result, _DEPTH * _LARGEST, rtol=0.01) else 7


def _largest_products() -> onnx.ModelProto:
    """A quantised linear layer whose products are the largest there are."""
    one, zero = np.ones(_DEPTH, np.float32), np.zeros(_DEPTH, np.int8)
    stored = {
        "input_scale": np.float32(1),
        "output_scale": np.float32(_DEPTH * _LARGEST / 255),
        "zero": np.uint8(0),
        "weight": np.full((_DEPTH, _DEPTH), 127, np.int8),
        "weight_scale": one,
        "weight_zero": zero,
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "input_scale", "zero"], ["input_int8"]),
        helper.make_node("DequantizeLinear", ["input_int8", "input_scale", "zero"], ["values"]),
        helper.make_node(
            "DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["weight_values"], axis=0
        ),
        helper.make_node("Gemm", ["values", "weight_values"], ["sum"], transB=1),
        helper.make_node("QuantizeLinear", ["sum", "output_scale", "zero"], ["sum_int8"]),
        helper.make_node("DequantizeLinear", ["sum_int8", "output_scale", "zero"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "largest_products",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, _DEPTH])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, _DEPTH])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
