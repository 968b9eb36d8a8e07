"""The certificate tells of a file what is so, and planted cheats fail."""

from __future__ import annotations

import functools
import importlib
from collections import Counter
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization as ort_quantization
from torch import nn
from torch.utils.data import TensorDataset

from petra_optuna.deploy import check_parity, export_onnx, lower
from petra_optuna.deploy.certificate import bytes_by_type, certificate, refuse_exchanged
from petra_optuna.errors import LoweringFailed
from petra_optuna.evaluation.quality import certified_inputs
from petra_optuna.nn.inputs import batch_size_of
from petra_optuna.pipeline import Applied
from petra_optuna.runtimes import OnnxRuntime
from petra_optuna.tasks import Split, Task
from petra_optuna.tasks.metrics import metric as find_metric

lower_module = importlib.import_module("petra_optuna.deploy.lower")
WEIGHTED = OnnxRuntime.weighted
RNG = np.random.default_rng


def test_the_numbers_are_those_of_the_arrays():
    expected = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [0.0, 4.0]], np.float32)
    actual = expected.copy()
    actual[2] = [1.0, 2.0]
    proto = helper.make_model(helper.make_graph([], "empty", [], []))
    found = certificate(proto, Counter({"Conv": 2, "QGemm": 1, "Relu": 3}), WEIGHTED, expected, actual)
    assert (found["samples"], found["agreement"]) == (4, 0.75)
    assert (found["max_abs_difference"], found["mean_abs_difference"]) == (1.0, 0.25)
    assert found["kernels"] == {"float": {"Conv": 2}, "int8": {"QGemm": 1}}


def test_agreement_is_for_scores_of_classes_only():
    proto = helper.make_model(helper.make_graph([], "empty", [], []))
    for shape in ((5, 1), (5,), (5, 2, 3)):
        array = np.ones(shape, np.float32)
        assert certificate(proto, Counter(), WEIGHTED, array, array)["agreement"] is None


def test_bytes_by_type():
    kinds = {np.float32: 4, np.float16: 2, np.int8: 1, np.uint8: 1, np.int32: 4, np.int64: 8}
    stored = [numpy_helper.from_array(np.ones((3, 5), kind), kind.__name__) for kind in kinds]
    stored.append(helper.make_tensor("half", TensorProto.BFLOAT16, [4], [1.0] * 4))
    graph = helper.make_graph([], "stored", [], [], stored)
    found = bytes_by_type(helper.make_model(graph))
    expected = {kind.__name__: 15 * size for kind, size in kinds.items()}
    other = expected.pop("int64") + numpy_helper.to_array(stored[-1]).nbytes
    assert found == {**expected, "other": other}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0, 10.0])
def test_outputs_blurred_by_any_noise_are_not_exchanged_ones(seed, noise):
    rng = RNG(seed)
    expected = rng.standard_normal((64, 10))
    expected[:, 1] = expected[:, 0] + 0.01 * expected[:, 1]  # two that can hardly be told apart
    refuse_exchanged(expected, expected + noise * rng.standard_normal(expected.shape))
    refuse_exchanged(expected, np.zeros_like(expected))


def test_outputs_that_rounding_makes_one_are_not_exchanged_ones():
    """Where rounding loses one input, all outputs follow what is left."""
    large, small = RNG(0).standard_normal((2, 64))
    expected = np.stack([large, 0.8 * large + 0.6 * small, small], axis=1)
    refuse_exchanged(expected, np.stack([large, large, large], axis=1))
    refuse_exchanged(expected, np.stack([small, small, small], axis=1))
    with pytest.raises(LoweringFailed, match="exchanged"):
        refuse_exchanged(expected, expected[:, [2, 0, 1]])


@pytest.mark.parametrize("shape", [(64, 10), (64, 2), (40, 3, 5)])
def test_two_exchanged_outputs_are_caught_through_rounding(shape):
    expected = RNG(0).standard_normal(shape)
    actual = expected + 0.1 * RNG(1).standard_normal(shape)
    refuse_exchanged(expected, actual)
    actual[:, [0, 1]] = actual[:, [1, 0]]
    with pytest.raises(LoweringFailed, match="output 0 of the file follows output 1 of the model"):
        refuse_exchanged(expected, actual)


def exchange_classes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The file with its classes in another order: a Gather in front of the output."""
    graph = proto.graph
    for node in graph.node:
        node.output[:] = ["scores" if name == "output" else name for name in node.output]
    graph.initializer.append(numpy_helper.from_array(np.array([1, 0, 2, 3]), "order"))
    graph.node.append(helper.make_node("Gather", ["scores", "order"], ["output"], axis=1))
    return proto


def not_a_number(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The file with the logarithm of a negative number added to its output."""
    graph = proto.graph
    for node in graph.node:
        node.output[:] = ["scores" if name == "output" else name for name in node.output]
    graph.initializer.append(numpy_helper.from_array(np.array(np.nan, np.float32), "nan"))
    graph.node.append(helper.make_node("Add", ["scores", "nan"], ["output"]))
    return proto


def planted(function, **report):
    return SimpleNamespace(
        name="planted", apply=lambda model, context: Applied(function(model), {"changed": True, **report})
    )


@pytest.fixture
def samples():
    return (torch.randn(96, 1, 8, 8, generator=torch.Generator().manual_seed(3)),)


class Samples:
    """Calibration data for ONNX Runtime's own tool."""

    def __init__(self, array):
        self.get_next = functools.partial(next, iter([{"input": array}]), None)


def int8(proto, tmp_path, samples):
    path = tmp_path / "quantized.onnx"
    ort_quantization.quantize_static(
        proto,
        path,
        Samples(samples[0].numpy()),
        per_channel=True,
        reduce_range=True,
        activation_type=ort_quantization.QuantType.QUInt8,
        weight_type=ort_quantization.QuantType.QInt8,
    )
    return onnx.load(path)


def test_an_int8_file_is_certified_and_with_exchanged_classes_refused(residual, images, samples, tmp_path):
    claim = {"precision": "int8_static", "left_float": []}
    honest = planted(lambda proto: int8(proto, tmp_path, samples), **claim)
    parity = lower(residual, images, tmp_path / "a.onnx", honest, samples=samples).lowering["parity"]
    assert parity["samples"] == 96
    assert parity["agreement"] > 0.8
    assert 0 < parity["mean_abs_difference"] < parity["max_abs_difference"]
    assert not parity["kernels"]["float"]
    assert sum(parity["kernels"]["int8"].values()) > 0
    assert parity["bytes"]["int8"] > parity["bytes"]["float32"]
    cheat = planted(lambda proto: exchange_classes(int8(proto, tmp_path, samples)), **claim)
    with pytest.raises(LoweringFailed, match="outputs are exchanged"):
        lower(residual, images, tmp_path / "b.onnx", cheat, samples=samples)
    assert not (tmp_path / "b.onnx").exists()


def test_a_float_file_with_exchanged_classes_is_caught_by_parity(residual, images):
    with pytest.raises(LoweringFailed, match="differs"):
        check_parity(residual, exchange_classes(export_onnx(residual, images)), images)


def test_an_output_that_is_not_a_number_is_caught(residual, images, tmp_path):
    with pytest.raises(LoweringFailed, match="not finite"):
        lower(residual, images, tmp_path / "model.onnx", planted(not_a_number))
    with pytest.raises(LoweringFailed, match="differs"):
        check_parity(residual, not_a_number(export_onnx(residual, images)), images)


def test_another_shape_is_caught():
    proto = helper.make_model(helper.make_graph([], "empty", [], []))
    with pytest.raises(LoweringFailed, match=r"shape \(4, 3\) and the file \(4, 2\)"):
        certificate(proto, Counter(), WEIGHTED, np.ones((4, 3)), np.ones((4, 2)))


def test_the_certificate_is_made_in_calls_that_do_not_fill_the_memory(
    residual, images, samples, tmp_path, monkeypatch
):
    whole = lower(residual, images, tmp_path / "a.onnx", samples=samples).lowering["parity"]
    sizes = []
    forward_of = lower_module.forward

    def forward(model, inputs):
        sizes.append(batch_size_of(inputs))
        return forward_of(model, inputs)

    monkeypatch.setattr(lower_module, "forward", forward)
    monkeypatch.setattr(lower_module, "samples_per_call", lambda model, inputs: 40)
    parts = lower(residual, images, tmp_path / "b.onnx", samples=samples).lowering["parity"]
    assert sizes == [40, 40, 16]
    assert (parts["samples"], parts["agreement"]) == (96, whole["agreement"])
    assert parts["max_abs_difference"] == pytest.approx(whole["max_abs_difference"], abs=1e-5)


def test_few_large_inputs_or_outputs_are_certified_and_many_small_ones():
    def count(side, model):
        images = torch.zeros(300, 1, 1, 1).expand(300, 3, side, side)
        split = Split(TensorDataset(images, torch.zeros(300)))
        task = Task("sizes", model, split, split, split, None, find_metric("rmse"), fingerprint="none")
        return batch_size_of(certified_inputs(task))

    small = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert [count(side, small) for side in (8, 224, 1024)] == [256, 55, 8]
    assert count(224, nn.Flatten()) == 27
