"""Factored layers in a file: small, exact, and at run time what the whole layers are."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from petra_optuna.deploy import OnnxRuntimeModel, check_parity, export_onnx
from petra_optuna.nn.counting import count_parameters
from petra_optuna.nn.low_rank import FactoredRecurrent, LowRankPair, decompose, merge_factors, reduce_layer


class Events(nn.Module):
    """Embedding, Conv1d, stacked bidirectional GRU (time first) and LSTM without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.conv = nn.Embedding(200, 32, padding_idx=0), nn.Conv1d(32, 48, 3, padding=1)
        self.gru = nn.GRU(48, 40, 2, bidirectional=True)
        self.lstm = nn.LSTM(80, 48, batch_first=True, bias=False)
        self.head = nn.Linear(48, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        values = self.conv(self.embed(tokens).transpose(1, 2)).permute(2, 0, 1)
        values = self.gru(values)[0].transpose(0, 1)
        return self.head(self.lstm(values)[0][:, -1])


def reduced(model: Events) -> Events:
    model = copy.deepcopy(model)
    for name in ("embed", "conv", "gru", "lstm"):
        setattr(model, name, reduce_layer(getattr(model, name), "share", 0.25).layer)
    return model


def test_a_file_of_factored_sequence_layers_is_small_exact_and_runs_as_whole_ones() -> None:
    """The factors here are small enough that the exporter's optimiser would multiply them."""
    torch.manual_seed(0)
    tokens = (torch.randint(0, 200, (4, 9)),)
    model = reduced(Events().eval()).eval()
    assert isinstance(model.gru, FactoredRecurrent)
    assert len(model.gru.ranks) == 8
    whole = merge_factors(copy.deepcopy(model), ("gru", "lstm")).eval()
    small, large = export_onnx(model, tokens), export_onnx(whole, tokens)
    check_parity(model, small, tokens)
    check_parity(whole, small, tokens)
    operators = [node.op_type for node in small.graph.node]
    assert operators.count("GRU") == 2
    assert operators.count("LSTM") == 1
    overhead = 20_000
    assert len(small.SerializeToString()) < 4 * count_parameters(model) + overhead
    assert len(large.SerializeToString()) > 4 * count_parameters(whole)
    assert count_parameters(whole) > 1.5 * count_parameters(model)
    kernels, plain = OnnxRuntimeModel(small).kernels(), OnnxRuntimeModel(large).kernels()
    assert kernels["MatMul"] == plain["MatMul"]
    assert (kernels["GRU"], kernels["LSTM"]) == (plain["GRU"], plain["LSTM"]) == (2, 1)
    assert sum(kernels.values()) <= sum(plain.values())


def test_factors_that_are_larger_than_their_product_are_multiplied_at_export() -> None:
    layer = FactoredRecurrent("gru", 8, 8, batch_first=True, ranks={"weight_ih_l0": 8})
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.1)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, values: Tensor) -> Tensor:
            return self.layer(values)[0][:, -1]

    proto = export_onnx(Last(), (torch.randn(4, 5, 8),))
    assert "MatMul" not in [node.op_type for node in proto.graph.node]


def test_convolutions_by_channels_and_by_space_and_a_linear_layer_are_exact() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        decompose(nn.Conv2d(16, 24, (3, 5), stride=2, padding=(1, 2)), 8, "spatial"),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        decompose(nn.Conv2d(24, 24, 3, padding="same"), 8),
        decompose(nn.Conv2d(24, 24, 3, padding="same"), 8, "spatial"),
        nn.Flatten(),
        decompose(nn.Linear(24 * 4 * 4, 10), 4),
    ).eval()
    images = (torch.randn(4, 3, 8, 8),)
    assert sum(isinstance(module, LowRankPair) for module in model) == 4
    proto = export_onnx(model, images)
    assert check_parity(model, proto, images) < 1e-4
    assert [node.op_type for node in proto.graph.node].count("Conv") == 7


class Functional(nn.Module):
    """Calls torch's function, with a state of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(6, 8, 2, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        state = values[:, :2, :1].transpose(0, 1).repeat(1, 1, 8)
        output, last = torch.gru(
            values.transpose(0, 1), state, list(self.layer.parameters()), False, 2, 0.0, False, False, False
        )
        return output[3] + last[0] + last[1]


class Counted(TorchDispatchMode):
    """Counts operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def test_export_does_not_run_recurrent_layers_step_by_step() -> None:
    """As many operators are traced for two hundred time steps as for two; a functional call counts too."""
    model = Functional().eval()
    calls = []
    for steps in (4, 200):
        values = (torch.randn(4, steps, 6),)
        with Counted() as counted:
            proto = export_onnx(model, values)
        calls.append(counted.calls)
        assert check_parity(model, proto, values) < 1e-5
    assert calls[0] == calls[1]
