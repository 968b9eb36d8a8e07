"""Conversions of a task of values leave alone what scales its inputs and what makes its outputs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

from petra_optuna.deploy import OnnxRuntimeModel, export_onnx
from petra_optuna.nn.inputs import Inputs
from petra_optuna.operations import (
    BFloat16,
    Half,
    QuantizeDynamic,
    QuantizeNncf,
    QuantizeStatic,
)
from petra_optuna.operations.outer_nodes import LAST, last_layers, outer_nodes
from petra_optuna.operations.weight_only import named
from petra_optuna.pipeline import Operation
from petra_optuna.tasks.series.network import Scales, build_network

SCALES = Scales((1e4, 0.0, -3.0), (2.0, 1.0, 0.1), (1e5, 50.0))


class Windows:
    """The part of a context that conversions read: windows far from zero."""

    repair = False

    def __init__(self, regression: bool) -> None:
        self.regression = regression
        noise = torch.randn(64, 3, 40, generator=torch.Generator().manual_seed(0))
        self.inputs = noise * torch.tensor(SCALES.std)[:, None] + torch.tensor(SCALES.mean)[:, None]

    def calibration_batches(self, limit: int = 256, batch_size: int = 64) -> Iterator[tuple[Inputs, Tensor]]:
        for start in range(0, min(limit, 64), batch_size):
            yield (self.inputs[start : start + batch_size],), torch.zeros(batch_size)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    net = build_network(SCALES, 1, filters=8, depth=3)
    nn.init.normal_(net.model.head.weight)  # type: ignore[union-attr]
    net(Windows(True).inputs)
    return net.eval()


@pytest.fixture(scope="module")
def exported(network: nn.Module) -> onnx.ModelProto:
    return named(export_onnx(network, (Windows(True).inputs[:8],)))


def _error(operation: Operation, exported: onnx.ModelProto, regression: bool) -> float:
    """Root mean square of what a conversion changes, in deviations of the target."""
    context = Windows(regression)
    feeds = {"input": context.inputs.numpy()}
    expected = OnnxRuntimeModel(exported).run(feeds).astype(np.float64)
    converted = operation.apply(exported, context).model  # type: ignore[arg-type]
    return float(np.sqrt(np.square(OnnxRuntimeModel(converted).run(feeds) - expected).mean())) / 50.0


def test_raw_values_in_raw_values_out(network: nn.Module, exported: onnx.ModelProto) -> None:
    """The file computes (x - mean) / std, the network between, and y std + mean."""
    raw = Windows(True).inputs
    mean, std = (torch.tensor(values)[:, None] for values in (SCALES.mean, SCALES.std))
    with torch.no_grad():
        between = network.model(((raw.double() - mean) / std).float())  # type: ignore[operator]
    result = OnnxRuntimeModel(exported).run({"input": raw.numpy()})
    np.testing.assert_allclose(result, between.double() * 50.0 + 1e5, rtol=1e-6)
    assert [value.name for value in exported.graph.input] == ["input"]


def test_the_last_layer_is_the_one_behind_which_no_other_follows(exported: onnx.ModelProto) -> None:
    (last,) = last_layers(exported.graph, True)
    node = next(node for node in exported.graph.node if node.name == last)
    assert node.op_type == "Gemm"
    assert last_layers(exported.graph, False) == outer_nodes(exported.graph, False) == {}
    operators = {
        node.op_type for node in exported.graph.node if node.name in outer_nodes(exported.graph, True)
    }
    assert operators == {"Sub", "Div", "MaxPool", "Gemm", "Mul", "Add"}


def test_a_network_of_one_layer_has_no_last_one() -> None:
    model = named(export_onnx(nn.Linear(4, 2).eval(), (torch.randn(8, 4),)))
    assert last_layers(model.graph, True) == outer_nodes(model.graph, True) == {}


@pytest.mark.parametrize("operation", [QuantizeStatic(), QuantizeDynamic()], ids=lambda one: one.name)
def test_int8_leaves_the_last_layer_in_float_and_says_so(
    operation: Operation, exported: onnx.ModelProto
) -> None:
    applied = operation.apply(exported, Windows(True))  # type: ignore[arg-type]
    reasons = {layer["reason"]: layer["op"] for layer in applied.report["left_float"]}
    assert reasons[LAST] in ("Gemm", "MatMul")
    of_classes = operation.apply(exported, Windows(False))  # type: ignore[arg-type]
    assert LAST not in {layer["reason"] for layer in of_classes.report["left_float"]}


def test_bfloat16_keeps_the_last_weights(exported: onnx.ModelProto) -> None:
    kept = BFloat16().apply(exported, Windows(True)).model  # type: ignore[arg-type]
    (gemm,) = (node for node in kept.graph.node if node.op_type == "Gemm")
    types = {tensor.name: tensor.data_type for tensor in kept.graph.initializer}
    assert types[gemm.input[1]] == TensorProto.FLOAT
    assert TensorProto.BFLOAT16 in types.values()


@pytest.mark.parametrize(
    ("operation", "most"),
    [(QuantizeStatic(), 0.05), (QuantizeDynamic(), 0.05), (Half(), 0.005), (BFloat16(), 0.05)],
    ids=lambda one: getattr(one, "name", ""),
)
def test_values_far_from_zero_keep_their_digits(
    operation: Operation, most: float, exported: onnx.ModelProto
) -> None:
    error = _error(operation, exported, True)
    assert error < most
    assert error < 1.01 * _error(operation, exported, False)


@pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="nncf is not installed")
def test_nncf_leaves_the_ends_too(exported: onnx.ModelProto) -> None:
    applied = QuantizeNncf().apply(exported, Windows(True))  # type: ignore[arg-type]
    assert "Gemm" in {layer["op"] for layer in applied.report["left_float"]}
