"""A file to measure, made without torch."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES = 64


def chain(width: int, depth: int, seed: int = 0) -> onnx.ModelProto:
    """``depth`` square matrix products of ``width``, between narrow ends; the seed makes the weights."""
    rng = np.random.default_rng(seed)
    sizes = [FEATURES, *[width] * depth, FEATURES]
    nodes, weights, last = [], [], "input"
    for index, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        array = rng.standard_normal((rows, columns)).astype(np.float32) / np.float32(np.sqrt(rows))
        weights.append(numpy_helper.from_array(array, f"weight{index}"))
        name = "output" if index == depth else f"hidden{index}"
        nodes.append(helper.make_node("MatMul", [last, f"weight{index}"], [name]))
        last = name
    shape = ["batch", FEATURES]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
