"""Ranges of calibration against hand values."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from petra_optuna.operations.calibration import calibrate, entropy_range

FLOAT = np.float32


def _relu() -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 500]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _ranges(method: str, percentile: float, batches: list[np.ndarray]) -> dict[str, tuple[float, float]]:
    feeds = [{"x": batch.astype(FLOAT)} for batch in batches]
    ranges = calibrate(_relu(), feeds, ["Relu"], method, percentile)
    return {
        name: tuple(float(np.squeeze(value)) for value in data.range_value) for name, data in ranges.items()
    }


def test_minmax_is_the_extremes_over_all_batches() -> None:
    batches = [np.full((2, 500), value) for value in (-3.0, 1.0, 2.5)]
    assert _ranges("minmax", 99.9, batches) == {"x": (-3.0, 2.5), "y": (0.0, 2.5)}


def test_a_percentile_leaves_out_its_share_of_magnitudes() -> None:
    values = np.linspace(0, 10, 1000).reshape(2, 500)
    low, high = _ranges("percentile", 99.0, [values])["y"]
    assert low == 0
    assert high == pytest.approx(9.9, abs=0.02)


def test_entropy_cuts_a_far_outlier_and_keeps_what_is_even() -> None:
    generator = np.random.default_rng(0)
    even = generator.uniform(-1, 1, (40, 500))
    assert _ranges("entropy", 99.9, [even])["x"] == pytest.approx((-1, 1), abs=0.02)
    outlier = generator.standard_normal((400, 500))
    outlier[0, 0] = 40.0
    low, high = _ranges("entropy", 99.9, [outlier])["x"]
    assert -low < 10
    assert 3 < high < 10


def test_entropy_is_not_led_by_zeros() -> None:
    """Half of what a ReLU returns is zero, which any range holds exactly."""
    edges = np.linspace(-1, 1, 2049)
    histogram = np.zeros(2048, int)
    histogram[1024:] = 1000
    without = entropy_range(histogram, edges, FLOAT(0), FLOAT(1))
    histogram[1024] = 10**6
    assert entropy_range(histogram, edges, FLOAT(0), FLOAT(1)) == without == (0, 1)
