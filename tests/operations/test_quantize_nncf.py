from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from petra_optuna.deploy import OnnxRuntimeModel, export_onnx, lower
from petra_optuna.errors import OperationFailed
from petra_optuna.models import ResidualNet
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.operations import QuantizeNncf

pytestmark = pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="nncf is not installed")


class Calibration:
    """The part of a context that conversions read."""

    regression = False

    def __init__(self):
        self.asked = []

    def calibration_batches(self, limit=256, batch_size=64):
        self.asked.append(limit)
        generator = torch.Generator().manual_seed(3)
        for _ in range(2):
            yield (torch.randn(32, 1, 8, 8, generator=generator),), torch.zeros(32)


@pytest.fixture(scope="module")
def images():
    return (torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)),)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ResidualNet(1, 4, widths=(16, 32), blocks=1).eval()


@pytest.mark.parametrize("preset", ["performance", "mixed"])
def test_every_layer_runs_in_int8_in_openvino(model, images, tmp_path, preset):
    context = Calibration()
    made = lower(model, images, tmp_path / "model.onnx", QuantizeNncf(preset), context, runtime="openvino")
    layers = sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in model.modules())
    report, parity = made.lowering["conversion"], made.lowering["parity"]
    assert made.lowering["precision"] == "int8_static"
    assert report["quantized_weights"] == layers == sum(parity["kernels"]["int8"].values())
    assert parity["kernels"]["float"] == {}
    assert (report["left_float"], report["calibration_samples"], context.asked) == ([], 64, [256])
    assert parity["agreement"] >= 0.9
    assert parity["max_abs_difference"] > 0


def test_the_input_stays_and_the_presets_differ(model, images):
    exported = export_onnx(model, images)
    before = exported.SerializeToString(deterministic=True)
    files = [QuantizeNncf(preset).apply(exported, Calibration()).model for preset in ("performance", "mixed")]
    assert exported.SerializeToString(deterministic=True) == before
    one, two = (OnnxRuntimeModel(file).run(to_feeds(images)) for file in files)
    assert not np.array_equal(one, two)
    again = QuantizeNncf().apply(exported, Calibration()).model
    assert again.SerializeToString(deterministic=True) == files[0].SerializeToString(deterministic=True)


def test_what_cannot_be_quantised_is_one_line(images, monkeypatch, tmp_path):
    plain = export_onnx(nn.Sequential(nn.ReLU(), nn.Flatten()), images)
    with pytest.raises(OperationFailed, match="no layer whose weights"):
        QuantizeNncf().apply(plain, Calibration())
    child = tmp_path / "child.py"
    child.write_text("import sys\nprint('noise', file=sys.stderr)\nsys.exit('out of memory')\n")
    monkeypatch.setattr("petra_optuna.operations.quantize_nncf._CHILD", child)
    linear = export_onnx(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), images)
    with pytest.raises(OperationFailed, match=r"^nncf: out of memory$"):
        QuantizeNncf().apply(linear, Calibration())
