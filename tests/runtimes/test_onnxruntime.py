"""Kernels that ONNX Runtime runs."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from petra_optuna.runtimes import OnnxRuntime


def test_kernels_inside_a_loop_count_once(tmp_path: Path) -> None:
    """A running sum behind a sine; neither can be computed when the file is loaded."""
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])
        for name in ("sum", "row", "sine", "next", "copy")
    }
    body = helper.make_graph(
        [
            helper.make_node("Sin", ["row"], ["sine"]),
            helper.make_node("Add", ["sum", "sine"], ["next"]),
            helper.make_node("Cos", ["next"], ["copy"]),
        ],
        "body",
        [values["sum"], values["row"]],
        [values["next"], values["copy"]],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Scan", ["start", "rows"], ["end", "copies"], body=body, num_scan_inputs=1),
            helper.make_node("Exp", ["end"], ["output"]),
        ],
        "graph",
        [
            helper.make_tensor_value_info("start", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["steps", 2]),
        ],
        [
            helper.make_tensor_value_info("output", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("copies", TensorProto.FLOAT, ["steps", 2]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    _, kernels = OnnxRuntime().inspect(tmp_path / "model.onnx")
    assert kernels == {"Scan": 1, "Sin": 1, "Add": 1, "Cos": 1, "Exp": 1}
