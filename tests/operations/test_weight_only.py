"""Weights stored in INT8 and computed with in float."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from support.samples import Samples
from torch import Tensor, nn

from petra_optuna.deploy import OnnxRuntimeModel, export_onnx
from petra_optuna.deploy.checks import check_kernels, check_weights
from petra_optuna.errors import OperationFailed
from petra_optuna.operations.int8_graph import weighted_layers
from petra_optuna.operations.quantize_dynamic import QuantizeDynamic
from petra_optuna.operations.quantize_static import QuantizeStatic
from petra_optuna.operations.weight_only import STORED, named, round_symmetric, store_int8
from petra_optuna.runtimes import OnnxRuntime

WEIGHTED = OnnxRuntime.weighted

HIDDEN = 160
JOINED = 48
"""The exporter joins the gates and directions of matrices as small as these."""


class Encoder(nn.Module):
    """Codes and amounts through a recurrent layer; the last step is the result."""

    def __init__(self, kind: type[nn.GRU | nn.LSTM], hidden: int, **options: object) -> None:
        super().__init__()
        self.table = nn.Embedding(200, 16)
        self.recurrent = kind(20, hidden, batch_first=True, **options)
        self.head = nn.Identity() if self.recurrent.bidirectional else nn.Linear(hidden, 32)

    def forward(self, codes: Tensor, amounts: Tensor) -> Tensor:
        outputs, _ = self.recurrent(torch.cat([self.table(codes), amounts], 2))
        return self.head(outputs[:, -1])


def _inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 200, (12, 7), generator=generator)
    return codes, torch.randn(12, 7, 4, generator=generator)


def _export(kind: type[nn.GRU | nn.LSTM], hidden: int, **options: object) -> onnx.ModelProto:
    torch.manual_seed(0)
    return export_onnx(Encoder(kind, hidden, **options).eval(), _inputs())


def _run(model: onnx.ModelProto) -> np.ndarray:
    codes, amounts = _inputs()
    return OnnxRuntimeModel(model).run({"input_0": codes.numpy(), "input_1": amounts.numpy()})


@pytest.fixture(scope="module")
def gru() -> onnx.ModelProto:
    return _export(nn.GRU, HIDDEN)


MATRICES = ["table.weight", "recurrent.weight_ih_l0", "recurrent.weight_hh_l0"]


def test_integers_and_scales_against_numpy() -> None:
    weight = np.array([[1.27, -0.5, 0.004], [0, 0, 0]], np.float32)
    values, scales = round_symmetric(weight, 0, 127)
    assert values.tolist() == [[127, -50, 0], [0, 0, 0]]
    assert scales.tolist() == [[pytest.approx(0.01)], [1]]
    values, scales = round_symmetric(np.random.default_rng(0).normal(size=(5, 7)).astype("f"), 1, 64)
    assert scales.shape == (1, 7)
    assert (np.abs(values).max(0) == 64).all()


@pytest.mark.parametrize("operation", [QuantizeStatic(), QuantizeDynamic()], ids=lambda item: item.name)
def test_a_recurrent_encoder_takes_a_quarter_at_the_speed_of_float(operation, gru) -> None:
    applied = operation.apply(gru, Samples(*_inputs()))
    assert applied.report["weight_only"] == MATRICES
    assert applied.report["quantized_weights"] == 1  # the head
    assert applied.report["left_float"] == []
    assert applied.model.ByteSize() < 0.3 * gru.ByteSize()
    expected = _run(gru)
    assert 0 < np.linalg.norm(_run(applied.model) - expected) < 0.02 * np.linalg.norm(expected)
    kernels, before = (OnnxRuntimeModel(model).kernels() for model in (applied.model, gru))
    assert kernels["GRU"] == 1
    # Restored when the file is loaded: what stays are the nodes of the float file.
    assert kernels["Cast"] == before["Cast"]
    assert kernels["Slice"] == before["Slice"]
    check_weights(applied.model, applied.report)
    check_kernels(kernels, WEIGHTED, applied.report["precision"], applied.report)


def test_weights_in_the_file_are_those_of_the_model_rounded(gru) -> None:
    stored = named(gru)
    assert list(store_int8(stored, STORED)) == MATRICES
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in gru.graph.initializer}
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in stored.graph.initializer}
    for name in MATRICES:
        scales = after[f"{name}_int8_scale"]
        assert scales.size == before[name].shape[1 if name == "table.weight" else 0]
        assert np.abs(after[f"{name}_int8"] * scales - before[name]).max() <= 0.501 * scales.max()
        assert name not in after


def test_stacked_both_ways_without_any_other_weight_is_no_failure() -> None:
    proto = _export(nn.LSTM, JOINED, num_layers=2, bidirectional=True)
    assert any(len(tensor.dims) == 3 for tensor in proto.graph.initializer)
    expected = _run(proto)
    for operation in (QuantizeStatic(), QuantizeDynamic()):
        applied = operation.apply(proto, Samples(*_inputs()))
        assert applied.report["precision"] == "int8_weights"
        assert applied.report["quantized_weights"] == 0
        assert applied.report["left_float"] == []
        assert applied.model.ByteSize() < 0.35 * proto.ByteSize()
        assert np.abs(_run(applied.model) - expected).max() < 0.02 * np.abs(expected).max()
        check_kernels(OnnxRuntimeModel(applied.model).kernels(), WEIGHTED, "int8_weights", applied.report)


def test_factors_of_a_recurrent_matrix_are_stored_as_factors(gru) -> None:
    factored = named(gru)
    graph = factored.graph
    (matrix,) = (tensor for tensor in graph.initializer if tensor.name == "recurrent.weight_hh_l0")
    left, right = (
        np.random.default_rng(0).normal(size=shape) * 0.1 for shape in ((3 * HIDDEN, 16), (16, HIDDEN))
    )
    graph.initializer.remove(matrix)
    graph.initializer.extend(
        numpy_helper.from_array(part.astype("f"), name) for part, name in ((left, "left"), (right, "right"))
    )
    product = onnx.helper.make_node("MatMul", ["left", "right"], [matrix.name], name="product")
    graph.node.insert(0, product)
    for operation in (QuantizeStatic(), QuantizeDynamic()):
        applied = operation.apply(factored, Samples(*_inputs()))
        assert {"left", "right"} < set(applied.report["weight_only"])
        assert applied.report["quantized_weights"] == 1
        expected = _run(factored)
        assert np.abs(_run(applied.model) - expected).max() < 0.05 * np.abs(expected).max()
        assert OnnxRuntimeModel(applied.model).kernels()["MatMul"] == 0


def test_a_table_that_is_also_the_weight_of_a_layer_is_in_the_file_in_int8_only() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(120, 32)

        def forward(self, codes: Tensor) -> Tensor:
            return nn.functional.linear(torch.relu(self.table(codes).mean(1)), self.table.weight)

    torch.manual_seed(0)
    codes = torch.arange(240).reshape(40, 6) % 120
    proto = export_onnx(Tied().eval(), (codes,))
    applied = QuantizeStatic().apply(proto, Samples(codes))
    check_weights(applied.model, applied.report)
    assert applied.report["quantized_weights"] == 1
    stored = [tensor.data_type for tensor in applied.model.graph.initializer if len(tensor.dims) == 2]
    assert stored == [onnx.TensorProto.INT8]


def test_what_is_too_small_stays_in_float_and_is_named() -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.layer = nn.Embedding(5, 2), nn.Linear(2, 64)

        def forward(self, codes: Tensor) -> Tensor:
            return self.layer(self.table(codes).mean(1))

    codes = torch.arange(20).reshape(4, 5) % 5
    proto = export_onnx(Small().eval(), (codes,))
    (item,) = QuantizeStatic().apply(proto, Samples(codes)).report["left_float"]
    assert (item["name"], item["op"]) == ("table.weight", "Gather")
    assert "too small" in item["reason"]
    only = export_onnx(nn.Embedding(5, 2).eval(), (codes,))
    for operation in (QuantizeStatic(), QuantizeDynamic()):
        with pytest.raises(OperationFailed, match="none of the model's weights"):
            operation.apply(only, Samples(codes))


class Cross(nn.Module):
    """Attention to the input from a layer of it: queries and keys split the fused projection."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.attention(self.layer(tokens), tokens, tokens, need_weights=False)[0]


def test_parts_of_a_weight_are_stored_and_compute_the_same() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(4, 6, 16)
    proto = export_onnx(Cross().eval(), (tokens,))
    prepared = named(proto)
    assert "Split" in [node.op_type for node in proto.graph.node]
    assert len(weighted_layers(prepared.graph)) == len(weighted_layers(proto.graph)) + 2
    read = {name for node in prepared.graph.node for name in node.input}
    assert read.issuperset(tensor.name for tensor in prepared.graph.initializer)
    outputs = [OnnxRuntimeModel(graph).run({"input": tokens.numpy()}) for graph in (proto, prepared)]
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-5, atol=1e-6)


def test_a_weight_that_is_read_whole_as_well_is_not_split() -> None:
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "weight")
    sizes = numpy_helper.from_array(np.array([2, 2]), "sizes")
    nodes = [
        helper.make_node("Split", ["weight", "sizes"], ["left", "right"], axis=1),
        helper.make_node("MatMul", ["input", "weight"], ["whole"]),
        helper.make_node("MatMul", ["whole", "left"], ["output"]),
    ]
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("input", "output")
    ]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:], [weight, sizes])
    prepared = named(helper.make_model(graph))
    assert [node.op_type for node in prepared.graph.node] == ["Split", "MatMul", "MatMul"]
