"""Files to measure, made without torch."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

FEATURES = 64


def chain(width: int, depth: int) -> onnx.ModelProto:
    """``depth`` square matrix products of ``width``, between narrow input and output."""
    rng = np.random.default_rng(0)
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


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """``slow``, its ``copy``, ``fast`` and a file that is none."""
    folder = tmp_path_factory.mktemp("measured")
    for name, model in {"slow": chain(1024, 3), "copy": chain(1024, 3), "fast": chain(256, 3)}.items():
        onnx.save(model, folder / f"{name}.onnx")
    (folder / "garbage.onnx").write_bytes(b"this is no model")
    return folder


@pytest.fixture(scope="session")
def feeds():
    return {"input": np.random.default_rng(1).standard_normal((3, FEATURES)).astype(np.float32)}


@pytest.fixture
def large(tmp_path):
    """A file with 280 MB of weights."""
    onnx.save(chain(6000, 3), tmp_path / "large.onnx")
    return tmp_path / "large.onnx"
