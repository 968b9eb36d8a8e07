from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from petra_optuna.deploy import OnnxRuntimeModel, checks, export_onnx, lower
from petra_optuna.errors import OperationFailed
from petra_optuna.models import ResidualNet
from petra_optuna.operations import quantize_static
from petra_optuna.operations.half_precision import BFloat16, Half
from petra_optuna.operations.quantize_dynamic import QuantizeDynamic
from petra_optuna.operations.quantize_static import QuantizeStatic
from petra_optuna.operations.sensitivity import FloatGroup
from petra_optuna.pipeline import Pipeline
from petra_optuna.runtimes import OnnxRuntime

WEIGHTED = OnnxRuntime.weighted

STATIC = (
    QuantizeStatic(),
    QuantizeStatic(calibration="percentile"),
    QuantizeStatic(calibration="entropy"),
)
ALL = (*STATIC, QuantizeDynamic(), Half(), BFloat16())


@dataclasses.dataclass
class Calibration:
    """The part of a context that conversions read."""

    shape: tuple[int, ...]
    asked: list[int] = dataclasses.field(default_factory=list)
    repair: bool = False
    regression: bool = False

    def calibration_batches(self, limit=256, batch_size=64):
        self.asked.append(limit)
        generator = torch.Generator().manual_seed(0)
        for start in range(0, 40, batch_size):
            count = min(batch_size, 40 - start)
            yield (torch.randn(count, *self.shape, generator=generator),), torch.zeros(count)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ResidualNet(1, 40, widths=(16, 32), blocks=1).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def exported(model, images):
    return export_onnx(model, (images,))


def convert(operation, proto, shape=(1, 8, 8)):
    return operation.apply(proto, Calibration(shape))


def run(proto, images):
    return OnnxRuntimeModel(proto).run({"input": images.numpy()})


def stored_bytes(proto):
    return sum(len(numpy_helper.to_array(tensor).tobytes()) for tensor in proto.graph.initializer)


@pytest.mark.parametrize(
    "operation", ALL, ids=lambda item: "-".join(map(str, item.active_values().values())) or item.name
)
def test_a_conversion_returns_another_graph_that_computes_nearly_the_same(operation, exported, images):
    before = exported.SerializeToString(deterministic=True)
    applied = convert(operation, exported)
    assert exported.SerializeToString(deterministic=True) == before
    assert applied.model is not exported
    assert applied.report["changed"] is True
    assert json.loads(json.dumps(applied.report)) == applied.report
    expected = run(exported, images)
    error = np.abs(run(applied.model, images) - expected)
    assert 0 < error.max() < 0.1 * np.abs(expected).max()
    assert [item.name for item in applied.model.graph.input] == ["input"]
    assert [item.name for item in applied.model.graph.output] == ["output"]
    assert stored_bytes(applied.model) < stored_bytes(exported)


@pytest.mark.parametrize(
    "operation", ALL, ids=lambda item: "-".join(map(str, item.active_values().values())) or item.name
)
def test_a_conversion_is_deterministic_and_silent(operation, exported, capfd):
    first, second = (convert(operation, exported).model for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "operation", [STATIC[0], QuantizeDynamic(), Half(), BFloat16()], ids=lambda item: item.name
)
def test_a_converted_model_lowers_to_one_small_file_without_paths(
    operation, model, exported, images, tmp_path
):
    artifact = lower(model, (images,), tmp_path / "converted.onnx", operation, Calibration((1, 8, 8)))
    assert artifact.size_bytes < exported.ByteSize()
    assert [item.name for item in tmp_path.iterdir()] == ["converted.onnx"]
    data = artifact.path.read_bytes()
    assert not any(text in data for text in (b"/tmp", str(tmp_path).encode(), b"ort.quant", b"site-packages"))


@pytest.mark.parametrize("operation", STATIC, ids=lambda item: item.calibration)
def test_static_runs_in_int8_from_first_to_last_layer(operation, exported):
    applied = convert(operation, exported)
    kernels = OnnxRuntimeModel(applied.model).kernels()
    assert kernels["QLinearConv"] == 6
    assert kernels["QLinearAdd"] == 2
    assert kernels["QGemm"] == 1
    assert not kernels["Conv"] + kernels["FusedConv"] + kernels["Gemm"] + kernels["Add"]
    assert applied.report["quantized_weights"] == 7
    assert applied.report["left_float"] == []


def test_static_stores_a_quarter(exported):
    quantized = convert(QuantizeStatic(), exported).model
    assert stored_bytes(quantized) < 0.28 * stored_bytes(exported)


def test_static_calibrates_on_at_most_256_samples(exported):
    context = Calibration((1, 8, 8))
    applied = QuantizeStatic().apply(exported, context)
    assert context.asked == [256]
    assert applied.report["calibration_samples"] == 40


def scales(proto):
    return {
        tensor.name: float(numpy_helper.to_array(tensor))
        for tensor in proto.graph.initializer
        if tensor.name.endswith("_scale") and not tensor.dims
    }


def test_a_lower_percentile_gives_narrower_ranges(exported):
    widest, wide, narrow = (
        scales(convert(operation, exported).model)
        for operation in (
            QuantizeStatic(),
            QuantizeStatic(calibration="percentile", percentile=99.99),
            QuantizeStatic(calibration="percentile", percentile=99.9),
        )
    )
    assert set(widest) == set(wide) == set(narrow)
    assert sum(narrow.values()) < sum(wide.values()) <= sum(widest.values()) * 1.001


def test_the_percentile_counts_only_where_it_is_used():
    pipelines = [Pipeline((QuantizeStatic("minmax", percentile),)) for percentile in (99.9, 99.99)]
    assert pipelines[0].hash == pipelines[1].hash


def test_static_stores_what_has_no_kernel_in_int8_and_says_so():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ConvTranspose2d(8, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(144, 4)
    )
    images = torch.randn(2, 1, 8, 8)
    proto = export_onnx(model.eval(), (images,))
    applied = convert(QuantizeStatic(), proto)
    assert applied.report["quantized_weights"] == 3
    assert applied.report["weight_only"] == ["1.weight"]
    assert applied.report["left_float"] == []
    kernels = OnnxRuntimeModel(applied.model).kernels()
    assert (kernels["QLinearConv"], kernels["ConvTranspose"]) == (2, 1)
    expected = run(proto, images)
    assert np.abs(run(applied.model, images) - expected).max() < 0.1 * np.abs(expected).max()


def outlier_after(kind):
    """Layers of which one, or the tensor between two, INT8 can hardly hold; and which ones help."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(), nn.Linear(128, 4))
    with torch.no_grad():
        if kind == "weight":  # reads a channel that is always zero
            model[0].weight[0], model[0].bias[0] = 0, -1
            model[2].weight[:, 0] = 300.0
        elif kind == "input":
            model[0].weight[:, 0] *= 1e-3
        else:  # the scales of a channel cancel
            model[2].weight[0] *= 1000
            model[2].bias[0] *= 1000
            model[4].weight[:, 0] /= 1000
    return model.eval()


class Outliers(Calibration):
    """Images whose first channel is a thousand times the second, for ``input``."""

    def calibration_batches(self, limit=256, batch_size=64):
        for (images,), targets in super().calibration_batches(limit, batch_size):
            yield (images * torch.tensor([1e3, 1.0]).reshape(2, 1, 1) if self.large else images,), targets


@pytest.mark.parametrize(
    ("kind", "left"),
    [("weight", {"2.weight"}), ("input", {"0.weight"}), ("between", {"2.weight", "4.weight"})],
)
def test_layers_that_cost_most_are_left_in_float_and_the_file_gets_better(kind, left):
    context = Outliers((2, 4, 4))
    context.large = kind == "input"
    ((images,), _), *_ = context.calibration_batches()
    proto = export_onnx(outlier_after(kind), (images,))
    expected, errors, applied = run(proto, images), [], {}
    for count in (0, len(left)):
        applied = QuantizeStatic(keep_float=count).apply(proto, context)
        errors.append(np.linalg.norm(run(applied.model, images) - expected) / np.linalg.norm(expected))
    weights = {node.name: node.input[1] for node in proto.graph.node if len(node.input) > 1}
    items = applied.report["left_float"]
    assert {weights[item["name"]] for item in items} == left
    assert all(item["reason"].startswith("kept in float") for item in items)
    assert all(item["error_after"] < 0.2 * item["error_before"] for item in items)
    assert errors[1] < 0.2 * errors[0]
    kernels = OnnxRuntimeModel(applied.model).kernels()
    assert checks.count(kernels, WEIGHTED.float) == len(left)
    assert checks.count(kernels, WEIGHTED.int8) == applied.report["quantized_weights"] == 4 - len(left)


def test_a_layer_left_in_float_is_not_quantised_by_the_runtime(monkeypatch):
    """ONNX Runtime does so between rounded tensors, pooling between them or not."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.left, self.pooled = nn.Conv1d(6, 16, 1), nn.Conv1d(16, 16, 5), nn.Conv1d(6, 16, 5)
            self.head = nn.Linear(32, 3)

        def forward(self, x):
            left, pooled = self.left(self.stem(x)), self.pooled(nn.functional.max_pool1d(x, 3, 1, 1))
            return self.head(torch.relu(torch.cat([left, pooled], 1)).mean(2))

    torch.manual_seed(0)
    proto = export_onnx(Branches().eval(), (torch.randn(2, 6, 20),))
    layers = [node.name for node in proto.graph.node if node.op_type in ("Conv", "Gemm")]
    for layer in layers:
        monkeypatch.setattr(
            quantize_static, "worst_layers", lambda *_, name=layer: (FloatGroup((name,), 1.0, 0.5),)
        )
        applied = QuantizeStatic(keep_float=1).apply(proto, Calibration((6, 20)))
        kernels = OnnxRuntimeModel(applied.model).kernels()
        assert [item["name"] for item in applied.report["left_float"]] == [layer]
        assert checks.count(kernels, WEIGHTED.float) == 1
        assert checks.count(kernels, WEIGHTED.int8) == len(layers) - 1


def test_one_layer_at_least_is_quantised():
    proto = export_onnx(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)).eval(), (torch.randn(4, 64),))
    report = convert(QuantizeStatic(keep_float=4), proto, (64,)).report
    assert report["quantized_weights"] == 1
    assert len(report["left_float"]) == 1


def test_nothing_is_rounded_where_no_layer_gains_by_it():
    class Ends(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, x):
            x = torch.cat([x[:, :32] * 2, x[:, 32:]], 1)
            return torch.cat([self.layer(x).softmax(1), x], 1)

    proto = export_onnx(Ends().eval(), (torch.randn(4, 64),))
    nodes = Counter(node.op_type for node in convert(QuantizeStatic(), proto, (64,)).model.graph.node)
    assert nodes["QuantizeLinear"] == 2  # input and output of the layer


@pytest.mark.parametrize("layer", ["Conv1d", "Linear3d", "depthwise", "concat", "sigmoid_gate"])
def test_static_int8_reaches_other_layers(layer, tmp_path):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(1, 8, 3, padding=1)
            self.left, self.right = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
            self.head = nn.Linear(16, 4)

        def forward(self, x):
            x = torch.relu(self.stem(x))
            return self.head(torch.cat([self.left(x), self.right(x)], 1).mean((2, 3)))

    cases = {
        "Conv1d": (nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 4)), (3, 12)),
        "Linear3d": (nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)), (5, 6)),
        "depthwise": (
            nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU6(), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1)),
            (4, 6, 6),
        ),
        "concat": (Branches(), (1, 8, 8)),
        "sigmoid_gate": (nn.Sequential(nn.Conv2d(1, 8, 3), nn.SiLU(), nn.Conv2d(8, 4, 3)), (1, 8, 8)),
    }
    torch.manual_seed(0)
    model, shape = cases[layer]
    inputs = (torch.randn(2, *shape),)
    artifact = lower(model.eval(), inputs, tmp_path / "model.onnx", QuantizeStatic(), Calibration(shape))
    kernels = Counter(artifact.lowering["kernels"])
    weighted = kernels["QLinearConv"] + kernels["QGemm"] + kernels["QLinearMatMul"]
    assert weighted == artifact.lowering["conversion"]["quantized_weights"]
    assert weighted == sum(isinstance(item, nn.Conv1d | nn.Conv2d | nn.Linear) for item in model.modules())


def test_dynamic_quantises_linear_layers_and_stores_convolutions_for_the_kernels_of_float(exported):
    applied = convert(QuantizeDynamic(), exported)
    kernels, before = (OnnxRuntimeModel(model).kernels() for model in (applied.model, exported))
    assert kernels["DynamicQuantizeMatMul"] == applied.report["quantized_weights"] == 1
    assert kernels["Conv"] == before["Conv"] == 6
    assert kernels["ReorderOutput"] == before["ReorderOutput"]  # still in the fast layout
    convolutions = [node.input[1] for node in exported.graph.node if node.op_type == "Conv"]
    left = [item["name"] for item in applied.report["left_float"]]
    assert sorted(applied.report["weight_only"] + left) == sorted(convolutions)
    assert len(left) <= 2  # too small to gain


def test_dynamic_stores_a_quarter_of_an_mlp():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 4)).eval()
    proto = export_onnx(model, (torch.randn(2, 1, 8, 8),))
    quantized = convert(QuantizeDynamic(), proto).model
    assert stored_bytes(quantized) < 0.32 * stored_bytes(proto)


def test_dynamic_copes_with_stored_shapes(exported):
    with_shapes = onnx.shape_inference.infer_shapes(exported)
    assert len(with_shapes.graph.value_info) > 0
    assert convert(QuantizeDynamic(), with_shapes).report["quantized_weights"] == 1


def test_half_halves_the_file_and_keeps_float32_outside(exported, images):
    applied = convert(Half(), exported)
    assert stored_bytes(applied.model) == pytest.approx(0.5 * stored_bytes(exported), rel=0.01)
    assert applied.report["float32_weights"] == 0
    for value in (*applied.model.graph.input, *applied.model.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    expected = run(exported, images)
    assert np.abs(run(applied.model, images) - expected).max() < 0.005 * np.abs(expected).max()


def test_half_names_the_weight_that_float16_cannot_hold():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    nn.init.constant_(model[1].weight, 1e5)
    proto = export_onnx(model.eval(), (torch.randn(2, 1, 8, 8),))
    with pytest.raises(OperationFailed, match=r"weight' goes beyond 65504"):
        convert(Half(), proto)


class TimeFirst(nn.Module):
    """A product along a sequence of which two dimensions were swapped."""

    def __init__(self, order):
        super().__init__()
        self.order, self.back = order, tuple(order.index(axis) for axis in range(3))
        self.first, self.second = nn.Linear(16, 24), nn.Linear(16, 24)

    def forward(self, x):
        moved = x.permute(self.order)
        products = self.first(moved) + self.second(moved).relu()
        return products.permute(self.back).flatten(1)


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1)])
def test_half_makes_files_that_onnx_runtime_loads_whatever_moved_in_front_of_a_product(order, tmp_path):
    """It dies by a signal on some of them, so they are opened in another process."""
    torch.manual_seed(0)
    sizes = [8, 8, 8]
    sizes[order[2]] = 16
    model, example = TimeFirst(order).eval(), (torch.randn(*sizes),)
    proto = export_onnx(model, example)
    applied = convert(Half(), proto, shape=tuple(sizes[1:]))
    assert applied.report["float32_weights"] == 0
    left = [item["op"] for item in applied.report["left_float"]]
    assert left == (["Transpose"] * len(left) if order[0] == 1 else [])
    path = tmp_path / "half.onnx"
    onnx.save(applied.model, path)
    script = f"import onnxruntime; onnxruntime.InferenceSession({str(path)!r})"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    expected = model(*example).detach().numpy()
    actual = OnnxRuntimeModel(applied.model).run({"input": example[0].numpy()})
    assert np.abs(actual - expected).max() < 0.005 * np.abs(expected).max()


class Nothing(nn.Module):
    """No weight at all."""

    def forward(self, x):
        return torch.relu(x).flatten(1)


@pytest.mark.parametrize(
    "operation", [QuantizeStatic(), QuantizeDynamic(), Half(), BFloat16()], ids=lambda item: item.name
)
def test_nothing_to_convert_is_a_failure_and_not_the_input(operation):
    proto = export_onnx(Nothing(), (torch.randn(2, 1, 8, 8),))
    with pytest.raises(OperationFailed, match=operation.name):
        convert(operation, proto)


def test_dynamic_without_a_linear_layer_stores_weights_only():
    proto = export_onnx(nn.Conv2d(1, 64, 3).eval(), (torch.randn(2, 1, 8, 8),))
    report = convert(QuantizeDynamic(), proto).report
    assert (report["precision"], report["weight_only"]) == ("int8_weights", ["weight"])


def test_bf16_halves_the_file_and_keeps_the_kernels_of_float(exported, images):
    applied = convert(BFloat16(), exported)
    assert stored_bytes(applied.model) == pytest.approx(0.5 * stored_bytes(exported), rel=0.03)
    kernels, before = (OnnxRuntimeModel(model).kernels() for model in (applied.model, exported))
    assert kernels == before
    by_hand = onnx.ModelProto()
    by_hand.CopyFrom(exported)
    for tensor in by_hand.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1 and np.prod(tensor.dims) > 60:
            rounded = torch.from_numpy(numpy_helper.to_array(tensor).copy()).bfloat16().float().numpy()
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    np.testing.assert_array_equal(run(applied.model, images), run(by_hand, images))


def test_notation_reads_the_papers_names():
    kinds = (QuantizeStatic, QuantizeDynamic, Half)
    for text, kind in {"PTQ": 0, "QS": 0, "PDQ": 1, "QD": 1, "FP16": 2}.items():
        assert type(Pipeline.from_notation(text, kinds).conversion) is kinds[kind]
