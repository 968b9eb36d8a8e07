"""Recurrent layers that compute in INT8."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from support.samples import Samples
from torch import Tensor, nn

from petra_optuna.deploy import OnnxRuntimeModel, export_onnx, lower
from petra_optuna.deploy.checks import check_kernels, check_weights
from petra_optuna.nn.low_rank import reduce_layer
from petra_optuna.operations import recurrent_int8
from petra_optuna.operations.quantize_dynamic import QuantizeDynamic
from petra_optuna.operations.weight_only import STORED, named, store_int8
from petra_optuna.runtimes import OnnxRuntime

WIDTH, UNITS = 6, 40
TIME = {"input": {1: "time"}}
TOLERANCE = 0.03
"""Of the outputs' norm. Rounding the weights alone moves these outputs by 0.5 %."""


class Last(nn.Module):
    """A recurrent layer over series (B, T, width): last outputs and last states, (B, ...)."""

    def __init__(
        self, kind: type[nn.GRU | nn.LSTM], units: int = UNITS, width: int = WIDTH, **options: object
    ):
        super().__init__()
        self.layer = kind(width, units, **options)
        self.begins, self.with_cell = False, kind is nn.LSTM

    def forward(self, series: Tensor) -> Tensor:
        layer = self.layer
        if not layer.batch_first:
            series = series.transpose(0, 1)
        outputs, state = layer(series, self._state(series) if self.begins else None)
        state = state if isinstance(state, Tensor) else torch.cat(state, 2)
        outputs = outputs[:, (0, -1)] if layer.batch_first else outputs[[0, -1]].transpose(0, 1)
        return torch.cat([outputs.flatten(1), state.transpose(0, 1).flatten(1)], 1)

    def _state(self, series: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        layer = self.layer
        values = series[:, 0, :1] if layer.batch_first else series[0, :, :1]
        count = layer.num_layers * (2 if layer.bidirectional else 1)
        state = torch.tanh(values).unsqueeze(0).repeat(count, 1, layer.hidden_size)
        return (state, 0.5 * state) if self.with_cell else state


def series(batch: int, steps: int, width: int = WIDTH) -> Tensor:
    return torch.randn(batch, steps, width, generator=torch.Generator().manual_seed(batch + steps))


def distance(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def stored_types(model: onnx.ModelProto) -> dict[int, int]:
    """Bytes of stored values by type."""
    sizes: dict[int, int] = {}
    for tensor in model.graph.initializer:
        sizes[tensor.data_type] = sizes.get(tensor.data_type, 0) + numpy_helper.to_array(tensor).nbytes
    return sizes


@pytest.fixture
def small_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of any size compute in INT8."""
    monkeypatch.setattr(recurrent_int8, "LEAST_UNITS", {"GRU": 1, "LSTM": 1})


FORMS = {
    "batch_first": ({"batch_first": True}, False),
    "time_first_with_state": ({"bias": False}, True),
    "layers_both_ways": ({"num_layers": 2, "bidirectional": True, "batch_first": True}, False),
    "both_ways_with_state": ({"bidirectional": True}, True),
}


@pytest.mark.usefixtures("small_layers")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_every_form_computes_what_the_model_computes_at_any_length(kind, form) -> None:
    options, begins = FORMS[form]
    torch.manual_seed(0)
    model = Last(kind, **options).eval()
    model.begins = begins
    proto = export_onnx(model, (series(3, 5),), TIME)
    applied = QuantizeDynamic().apply(proto, Samples(series(8, 9)))
    file = OnnxRuntimeModel(applied.model)
    for batch, steps in ((1, 1), (2, 7), (16, 30)):
        inputs = series(batch, steps)
        with torch.inference_mode():
            expected = model(inputs).numpy()
        actual = file.run({"input": inputs.numpy()})
        assert 0 < distance(actual, expected) < TOLERANCE, (batch, steps)
    kernels = file.kernels()
    assert applied.report["precision"] == "int8_dynamic"
    assert len(applied.report["quantized_recurrent"]) == options.get("num_layers", 1)
    assert kernels["GRU"] == kernels["LSTM"] == 0
    check_weights(applied.model, applied.report)
    check_kernels(kernels, OnnxRuntime.weighted, "int8_dynamic", applied.report)
    sizes = stored_types(applied.model)
    matrices = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 2)
    zeros = sizes[TensorProto.INT8] - matrices  # the LSTM's operator has zero points
    assert 0 <= zeros <= 16 * UNITS * options.get("num_layers", 1)
    assert sizes[TensorProto.FLOAT] < matrices  # scales and biases


@pytest.mark.usefixtures("small_layers")
@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("width", [16, UNITS])
def test_a_factored_gru_multiplies_with_both_factors_of_each_matrix(width, begins) -> None:
    torch.manual_seed(0)
    model = Last(nn.GRU, width=width, batch_first=True)
    model.begins = begins
    model.layer = reduce_layer(model.layer, "share", 0.5).layer
    assert len(model.eval().layer.ranks) == 2
    proto = export_onnx(model, (series(3, 5, width),), TIME)
    applied = QuantizeDynamic().apply(proto, Samples(series(8, 9, width)))
    file = OnnxRuntimeModel(applied.model)
    for batch, steps in ((1, 1), (16, 30)):
        inputs = series(batch, steps, width)
        with torch.inference_mode():
            expected = model(inputs).numpy()
        assert 0 < distance(file.run({"input": inputs.numpy()}), expected) < TOLERANCE
    integer = 2 if 2 * width < UNITS else 4
    assert (file.kernels()["DynamicQuantizeMatMul"], file.kernels()["GRU"]) == (integer, 0)
    assert len(applied.report["quantized_recurrent"]) == 1
    assert len(applied.report["weight_only"]) == len(applied.report["left_float"]) == 4 - integer
    check_weights(applied.model, applied.report)
    matrices = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 2)
    assert stored_types(applied.model)[TensorProto.INT8] == matrices


@pytest.mark.usefixtures("small_layers")
@pytest.mark.parametrize(("kind", "both_ways"), [(nn.LSTM, False), (nn.GRU, True)])
def test_other_factored_layers_are_stored_as_factors_and_compute_in_float(kind, both_ways) -> None:
    torch.manual_seed(0)
    model = Last(kind, width=UNITS, batch_first=True, bidirectional=both_ways)
    model.layer = reduce_layer(model.layer, "share", 0.5).layer
    proto = export_onnx(model.eval(), (series(3, 5, UNITS),), TIME)
    report = QuantizeDynamic().apply(proto, Samples(series(8, 9, UNITS))).report
    assert report["quantized_recurrent"] == []
    assert len(report["weight_only"]) == 4 * (1 + both_ways)


def _rounded_gru(inputs: np.ndarray, state: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """The last state of a GRU of PyTorch's weights, its matrices and states rounded as ONNX defines it."""

    def product(values: np.ndarray, matrix: np.ndarray, rounded: bool) -> np.ndarray:
        steps = np.abs(matrix).max(1) / 127
        whole = np.rint(matrix / steps[:, None])
        if not rounded:
            return values @ (whole * steps[:, None]).T
        step = (max(values.max(), 0) - min(values.min(), 0)) / 255 or 1.0  # zeros at the first step
        zero = np.rint(-min(values.min(), 0) / step)
        return (np.clip(np.rint(values / step) + zero, 0, 255) - zero) @ whole.T * step * steps

    def sigmoid(values: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-values))

    of_inputs, of_states, input_bias, state_bias = weights
    for values in inputs.swapaxes(0, 1):
        reset, update, new = np.split(product(values, of_inputs, rounded=False) + input_bias, 3, 1)
        parts = np.split(product(state, of_states, rounded=True) + state_bias, 3, 1)
        reset, update = sigmoid(reset + parts[0]), sigmoid(update + parts[1])
        state = (1 - update) * np.tanh(new + reset * parts[2]) + update * state
    return state


@pytest.mark.usefixtures("small_layers")
def test_a_gru_of_few_inputs_rounds_matrices_and_states_and_nothing_else(monkeypatch) -> None:
    monkeypatch.setattr("petra_optuna.operations.gru_steps.weight_bits", lambda: 8)
    torch.manual_seed(1)

    class State(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.GRU(WIDTH, UNITS, batch_first=True)

        def forward(self, series: Tensor) -> Tensor:
            return self.layer(series)[1][0]

    model, inputs = State().eval(), 3 * series(4, 6)
    proto = export_onnx(model, (inputs,), TIME)
    applied = QuantizeDynamic().apply(proto, Samples(inputs))
    weights = [parameter.detach().double().numpy() for parameter in model.layer.parameters()]
    expected = _rounded_gru(inputs.double().numpy(), np.zeros((4, UNITS)), weights)
    actual = OnnxRuntimeModel(applied.model).run({"input": inputs.numpy()})
    # A state next to the middle of a step may be rounded to either side.
    assert distance(actual, expected) < 1e-3
    with torch.inference_mode():
        assert distance(model(inputs).numpy(), expected) > 2e-3
    (layer,) = applied.report["quantized_recurrent"]
    assert applied.report["weight_only"] == [f"{layer}_input_0_weight"]
    (left,) = applied.report["left_float"]
    assert (left["op"], "few beside the units" in left["reason"]) == ("MatMul", True)


def test_mixed_lengths_in_one_batch_end_where_each_sequence_ends(tmp_path) -> None:
    """The whole way of a file, with a layer that is large enough by itself."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.GRU(WIDTH, 320, batch_first=True), nn.Linear(320, 3)

        def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
            outputs, _ = self.layer(series)
            return self.head(outputs[torch.arange(len(outputs)), lengths - 1])

    torch.manual_seed(0)
    model, lengths = Encoder().eval(), torch.tensor([9, 2, 5, 1])
    inputs, dynamic = (series(4, 9), lengths), {"input_0": {1: "time"}}
    path, whole = tmp_path / "int8.onnx", tmp_path / "float.onnx"
    artifact = lower(model, inputs, path, QuantizeDynamic(), Samples(*inputs), dynamic=dynamic)
    before = lower(model, inputs, whole, dynamic=dynamic)
    assert artifact.size_bytes < 0.3 * before.size_bytes
    assert artifact.lowering["precision"] == "int8_dynamic"
    assert artifact.lowering["parity"]["kernels"] == {
        "float": {"MatMul": 1},
        "int8": {"DynamicQuantizeMatMul": 2},
    }
    assert artifact.lowering["kernels"]["Scan"] == 1
    head = 3 * 320 + 3  # with zero points
    assert artifact.lowering["parity"]["bytes"]["int8"] == 3 * 320 * (320 + WIDTH) + head
    longer = (series(4, 12), torch.tensor([1, 12, 7, 3]))
    for values, ends in (inputs, longer):
        with torch.inference_mode():
            expected = model(values, ends).numpy()
            alone = np.concatenate(
                [model(values[i : i + 1, :end], ends[i : i + 1]) for i, end in enumerate(ends)]
            )
        actual = OnnxRuntimeModel(path).run({"input_0": values.numpy(), "input_1": ends.numpy()})
        assert distance(actual, expected) < 0.02
        assert distance(actual, alone) < 0.02


@pytest.mark.parametrize(("kind", "units"), [(nn.GRU, 319), (nn.LSTM, 95)])
def test_a_layer_of_fewer_units_is_stored_in_int8_and_named(kind, units) -> None:
    assert recurrent_int8.LEAST_UNITS == {"GRU": 320, "LSTM": 96}
    torch.manual_seed(0)
    proto = export_onnx(Last(kind, units, batch_first=True).eval(), (series(2, 4),), TIME)
    report = QuantizeDynamic().apply(proto, Samples(series(4, 4))).report
    assert (report["precision"], report["quantized_recurrent"]) == ("int8_weights", [])
    assert len(report["weight_only"]) == 2


@pytest.mark.usefixtures("small_layers")
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_inputs_that_int8_cannot_hold_are_not_rounded(kind) -> None:
    """Samples differ by a hundredth of what all of them have in common."""
    torch.manual_seed(0)
    inputs = 100 + 0.1 * series(8, 5, UNITS)
    model = Last(kind, width=UNITS, batch_first=True).eval()
    with torch.no_grad():
        model.layer.weight_ih_l0.sub_(model.layer.weight_ih_l0.mean(1, keepdim=True))
    proto = export_onnx(model, (inputs,), TIME)
    applied = QuantizeDynamic().apply(proto, Samples(inputs))
    kernels = OnnxRuntimeModel(applied.model).kernels()
    (left,) = applied.report["left_float"]
    assert "not fit INT8" in left["reason"]
    if kind is nn.GRU:
        assert left["op"] == "MatMul"
        assert (kernels["MatMul"], kernels["DynamicQuantizeMatMul"], kernels["GRU"]) == (1, 1, 0)
        assert applied.report["precision"] == "int8_dynamic"
    else:
        assert left["op"] == "LSTM"
        assert kernels["LSTM"] == 1
        assert applied.report["precision"] == "int8_weights"
    check_kernels(kernels, OnnxRuntime.weighted, applied.report["precision"], applied.report)


@pytest.mark.usefixtures("small_layers")
def test_wide_inputs_are_rounded_too() -> None:
    torch.manual_seed(0)
    inputs = torch.tanh(series(8, 5, UNITS))
    model = Last(nn.GRU, width=UNITS, batch_first=True).eval()
    applied = QuantizeDynamic().apply(export_onnx(model, (inputs,), TIME), Samples(inputs))
    assert applied.report["left_float"] == applied.report["weight_only"] == []
    kernels = OnnxRuntimeModel(applied.model).kernels()
    assert (kernels["DynamicQuantizeMatMul"], kernels["MatMul"]) == (2, 0)


@pytest.mark.usefixtures("small_layers")
@pytest.mark.parametrize("form", ["reset_first", "lengths", "computed", "masks"])
def test_a_gru_of_another_form_is_stored_in_int8_and_computes_in_float(form) -> None:
    generator = np.random.default_rng(0)
    matrices = {
        name: (0.3 * generator.normal(size=(1, 3 * UNITS, width))).astype("f")
        for name, width in (("of_inputs", WIDTH), ("of_states", UNITS))
    }
    matrices["of_states"][0, 0, 0] = -1e9 if form == "masks" else 0.1
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["time", "batch", WIDTH])]
    nodes, taken = [], ["input", "of_inputs", "of_states"]
    if form == "lengths":
        inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]))
        taken += ["", "lengths"]
    if form == "computed":
        nodes, taken[2] = [helper.make_node("Add", ["of_states", "more"], ["sum"])], "sum"
        matrices["more"] = np.ones((3 * UNITS, UNITS), "f")
    reset = int(form != "reset_first")
    gru = helper.make_node(
        "GRU", taken, ["", "output"], name="gru", hidden_size=UNITS, linear_before_reset=reset
    )
    graph = helper.make_graph(
        [*nodes, gru],
        "graph",
        inputs,
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, "batch", UNITS])],
        [numpy_helper.from_array(array, name) for name, array in matrices.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    assert recurrent_int8.integer_layers(model.graph) == []
    before = model.SerializeToString()
    assert recurrent_int8.compute_in_int8(model).layers == ()
    assert model.SerializeToString() == before
    assert "of_inputs" in store_int8(named(model), STORED)


@pytest.mark.usefixtures("small_layers")
def test_a_state_that_is_zero_stays_zero() -> None:
    """Rounding an empty range must not divide by it."""
    model = Last(nn.GRU, batch_first=True, bias=False).eval()
    proto = export_onnx(model, (series(2, 4),), TIME)
    applied = QuantizeDynamic().apply(proto, Samples(series(2, 4)))
    assert not OnnxRuntimeModel(applied.model).run({"input": np.zeros((2, 4, WIDTH), "f")}).any()


@pytest.mark.usefixtures("small_layers")
def test_names_are_unique_in_the_file() -> None:
    torch.manual_seed(0)
    model = Last(nn.GRU, num_layers=2, bidirectional=True).eval()
    applied = QuantizeDynamic().apply(export_onnx(model, (series(2, 4),), TIME), Samples(series(2, 4)))
    onnx.checker.check_model(applied.model, full_check=True)
    graphs = [applied.model.graph]
    graphs += [item.g for node in graphs[0].node for item in node.attribute if item.HasField("g")]
    assert len(graphs) == 5
    names = list(itertools.chain.from_iterable(node.output for graph in graphs for node in graph.node))
    names += [tensor.name for tensor in graphs[0].initializer]
    assert len(names) == len(set(names))
