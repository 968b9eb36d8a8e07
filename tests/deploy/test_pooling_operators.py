"""Pooling over time in files with a dynamic length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from petra_optuna.deploy import OnnxRuntimeModel, export_onnx
from petra_optuna.deploy.pooling_operators import PoolingOperators

POOLS: dict[str, dict[str, Any]] = {
    "as InceptionTime": {"kernel_size": 3, "stride": 1, "padding": 1},
    "as M5": {"kernel_size": 4},
    "every argument": {"kernel_size": (3,), "stride": 2, "padding": 1, "dilation": 2, "ceil_mode": True},
}


@pytest.mark.parametrize("name", POOLS)
def test_the_length_stays_dynamic_and_the_values_are_those_of_the_model(name: str) -> None:
    model = nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1), nn.MaxPool1d(**POOLS[name]), nn.Conv1d(4, 3, 1)
    ).eval()
    file = OnnxRuntimeModel(export_onnx(model, (torch.randn(2, 2, 20),), {"input": {2: "time"}}))
    for length in (17, 20, 33):
        series = torch.randn(3, 2, length)
        with torch.no_grad():
            np.testing.assert_allclose(file.run({"input": series.numpy()}), model(series), atol=1e-5)


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("length", [16, 17, 18, 19])
def test_shapes_are_those_of_pytorch(name: str, length: int) -> None:
    series = torch.empty(2, 3, length, device="meta")
    with PoolingOperators():
        pooled = nn.MaxPool1d(**POOLS[name])(series)
    assert pooled.shape == nn.MaxPool1d(**POOLS[name])(torch.zeros(2, 3, length)).shape


def test_a_call_that_wants_indices_is_left_to_pytorch() -> None:
    series = torch.randn(2, 3, 8)
    with PoolingOperators():
        pooled, indices = functional.max_pool1d(series, 2, return_indices=True)
    assert torch.equal(pooled, series.gather(2, indices))


def test_a_file_without_dynamic_axes_is_the_same_as_before() -> None:
    class Pool(nn.Module):
        def forward(self, series: Tensor) -> Tensor:
            return functional.max_pool1d(series, 2)

    plain = export_onnx(Pool(), (torch.randn(2, 3, 8),))
    dynamic = export_onnx(Pool(), (torch.randn(2, 3, 8),), {"input": {2: "time"}})
    assert [node.op_type for node in plain.graph.node] == [node.op_type for node in dynamic.graph.node]
