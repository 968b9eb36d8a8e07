"""The probe of the INT8 kernels, against the numbers it must give."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import torch
from support.samples import Samples
from torch import nn

from petra_optuna.deploy import OnnxRuntimeModel, export_onnx
from petra_optuna.operations.quantize_dynamic import QuantizeDynamic
from petra_optuna.operations.quantize_static import QuantizeStatic
from petra_optuna.operations.saturation import LIMITS, weight_bits


def _without_kernels(model: onnx.ModelProto, inputs: np.ndarray) -> np.ndarray:
    """The file as its QDQ pairs are defined: in float."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"input": inputs})[0]


def test_pairs_of_products_of_seven_bits_fit_in_sixteen() -> None:
    assert 2 * 255 * LIMITS[7] <= np.iinfo(np.int16).max < 2 * 255 * LIMITS[8]


def test_the_largest_products_are_added_right() -> None:
    """Where 8 bits saturate this fails with them: sums came out at half their value."""
    model = nn.Sequential(nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 16, 8)).eval()
    for layer in (model[0], model[3]):
        nn.init.constant_(layer.weight, 1.0)
    images = torch.ones(16, 32, 6, 6)
    images[0] = 0
    exported = export_onnx(model, (images,))
    applied = QuantizeStatic().apply(exported, Samples(images))
    assert applied.report["weight_bits"] == weight_bits()
    expected = _without_kernels(applied.model, images.numpy())
    actual = OnnxRuntimeModel(applied.model).run({"input": images.numpy()})
    np.testing.assert_allclose(actual, expected, rtol=0.01)
    dynamic = QuantizeDynamic().apply(exported, Samples(images)).model
    floating = OnnxRuntimeModel(exported).run({"input": images.numpy()})
    actual = OnnxRuntimeModel(dynamic).run({"input": images.numpy()})
    np.testing.assert_allclose(actual, floating, atol=0.02 * floating.max())


def test_weights_keep_within_the_limit_and_reach_it() -> None:
    torch.manual_seed(0)
    images = torch.randn(16, 12)
    proto = export_onnx(nn.Sequential(nn.Linear(12, 8)).eval(), (images,))
    file = QuantizeStatic().apply(proto, Samples(images)).model
    (weight,) = (
        onnx.numpy_helper.to_array(tensor)
        for tensor in file.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2
    )
    assert (np.abs(weight.astype(int)).max(1) == LIMITS[weight_bits()]).all()
