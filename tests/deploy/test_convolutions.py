"""Laws of the rewrite of one-dimensional convolutions."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from petra_optuna.deploy.convolutions import has_conv1d, to_conv2d
from petra_optuna.deploy.export import export_onnx
from petra_optuna.models import InceptionTime
from petra_optuna.operations.quantize_static import QuantizeStatic


class Both(nn.Module):
    """What a series can meet between two convolutions, and what it cannot stay four-dimensional for."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 8, 3, padding=1), nn.Conv1d(8, 8, 3, padding=1)
        self.bias = nn.Parameter(torch.randn(8, 20))
        self.scale = nn.Parameter(torch.randn(1, 8, 1))
        self.linear = nn.Linear(20, 20)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        joined = torch.cat([torch.relu(first), self.second(first)], dim=1)
        joined = torch.cat([joined, joined * 2], dim=-1)[:, :8, :20]
        mixed = self.second(self.linear(joined) + self.bias) * self.scale + first.mean(-1, keepdim=True)
        return mixed + nn.functional.pad(first, (3, 0))[:, :, :20]


class Gate(nn.Module):
    """Squeeze and excitation: a global pool whose result scales the series."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv1d(4, 8, 5, padding=2), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        features = nn.functional.hardswish(self.conv(x))
        weights = torch.sigmoid(self.gate(nn.functional.adaptive_avg_pool1d(features, 1).squeeze(-1)))
        return features * weights[:, :, None]


def _sequential(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(5))


CASES = {
    "inception": lambda: InceptionTime(4, 3, filters=4, depth=3, bottleneck=4),
    "dilation": lambda: _sequential(nn.Conv1d(4, 6, 3, dilation=2, padding=2), nn.ReLU(), nn.Conv1d(6, 6, 3)),
    "stride": lambda: _sequential(nn.Conv1d(4, 6, 3, stride=2), nn.PReLU(6), nn.Conv1d(6, 6, 2, stride=3)),
    "causal": lambda: _sequential(nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(4, 6, 5), nn.Conv1d(6, 6, 3)),
    "padding of a feature": lambda: _sequential(
        nn.Conv1d(4, 6, 3), nn.ReflectionPad1d((2, 1)), nn.Conv1d(6, 6, 3), nn.ConstantPad1d((0, 2), 1.5)
    ),
    "circular": lambda: _sequential(
        nn.Conv1d(4, 6, 5, padding=2, padding_mode="circular"), nn.Conv1d(6, 2, 1)
    ),
    "even kernel, same": lambda: _sequential(nn.Conv1d(4, 6, 4, padding="same"), nn.Conv1d(6, 6, 3)),
    "groups": lambda: _sequential(
        nn.Conv1d(4, 8, 3, groups=2), nn.BatchNorm1d(8), nn.Conv1d(8, 8, 3, groups=8)
    ),
    "pools": lambda: _sequential(
        nn.MaxPool1d(3, 2, 1, ceil_mode=True), nn.Conv1d(4, 6, 3), nn.AvgPool1d(2, 1), nn.Conv1d(6, 6, 1)
    ),
    "no bias, norms": lambda: _sequential(
        nn.Conv1d(4, 6, 3, bias=False), nn.InstanceNorm1d(6, affine=True), nn.GELU(), nn.Conv1d(6, 6, 3)
    ),
    "both": Both,
    "gate": Gate,
}


def _model(case: str) -> nn.Module:
    torch.manual_seed(0)
    model = CASES[case]()
    with torch.no_grad():
        model(torch.randn(8, 4, 20))
    return model.eval()


def _outputs(proto: onnx.ModelProto, inputs: np.ndarray, *, optimised: bool) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    output: np.ndarray = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    return output


class Calibration:
    """The part of a context that a conversion reads."""

    repair, regression = False, False

    def calibration_batches(self, limit: int = 256, batch_size: int = 64) -> Iterator[tuple[Any, Tensor]]:
        yield (torch.randn(32, 4, 20, generator=torch.Generator().manual_seed(2)),), torch.zeros(32)


@functools.cache
def _forms(case: str) -> tuple[onnx.ModelProto, onnx.ModelProto, np.ndarray]:
    inputs = torch.randn(8, 4, 20, generator=torch.Generator().manual_seed(1))
    series = export_onnx(_model(case), (inputs,))
    return series, to_conv2d(series), inputs.numpy()


@pytest.mark.parametrize("case", CASES)
def test_both_forms_compute_the_same_to_the_last_bit(case: str) -> None:
    series, images, inputs = _forms(case)
    onnx.checker.check_model(images, full_check=True)
    expected = _outputs(series, inputs, optimised=False)
    assert np.array_equal(_outputs(images, inputs, optimised=False), expected)
    fast = _outputs(images, inputs, optimised=True)
    np.testing.assert_allclose(fast, expected, rtol=1e-4, atol=1e-5)
    ranks = {tensor.name: len(tensor.dims) for tensor in images.graph.initializer}
    assert {ranks[node.input[1]] for node in images.graph.node if node.op_type == "Conv"} == {4}
    assert not has_conv1d(images)


@pytest.mark.parametrize("case", ["inception", "causal", "groups", "pools", "both"])
def test_both_forms_compute_the_same_in_int8(case: str) -> None:
    series, images, inputs = _forms(case)
    quantised = [QuantizeStatic().apply(proto, Calibration()) for proto in (series, images)]  # type: ignore[arg-type]
    assert quantised[0].report == quantised[1].report
    for optimised in (False, True):
        expected, got = (_outputs(item.model, inputs, optimised=optimised) for item in quantised)
        assert np.array_equal(got, expected)


def test_a_network_is_unsqueezed_where_it_begins_and_squeezed_where_it_ends() -> None:
    series, images, _ = _forms("inception")
    kinds, before = (Counter(node.op_type for node in proto.graph.node) for proto in (images, series))
    assert kinds - before == {"Unsqueeze": 1, "Squeeze": 1}
    assert before - kinds == {}


def test_weights_are_stored_once() -> None:
    for case in CASES:
        series, images, _ = _forms(case)
        sizes = [
            sum(int(np.prod(tensor.dims)) for tensor in proto.graph.initializer) for proto in (series, images)
        ]
        assert sizes[1] <= sizes[0] + 8, case


def test_the_graph_that_is_given_is_not_changed_and_one_without_series_stays_as_it_is() -> None:
    series, _, _ = _forms("both")
    before = series.SerializeToString(deterministic=True)
    to_conv2d(series)
    assert series.SerializeToString(deterministic=True) == before
    flat = export_onnx(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval(), (torch.randn(2, 1, 5, 5),))
    assert not has_conv1d(flat)
    assert to_conv2d(flat).SerializeToString(deterministic=True) == flat.SerializeToString(deterministic=True)
