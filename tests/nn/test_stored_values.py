"""The bound against what the exporter stores: never above it, and no less where nothing is in vectors."""

from __future__ import annotations

import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from petra_optuna.deploy import export_onnx
from petra_optuna.nn.stored_values import fewest_stored_values


class Spare(nn.Module):
    """A head that evaluation computes and throws away, and one that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(16, 32), nn.Linear(32, 4)
        self.thrown_away, self.never_called = nn.Linear(32, 64), nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.body(x))
        self.thrown_away(x)
        return self.head(x)


class Constants(nn.Module):
    """A table that is projected: the projection follows from weights alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.projection = nn.Parameter(torch.randn(16, 64)), nn.Linear(64, 4)
        self.embed, self.rows = nn.Linear(16, 64), nn.Parameter(torch.randn(50, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = self.projection(self.table) + self.rows[:16]
        return (self.embed(x).reshape(-1, 16, 4) + places).mean(1)


class Tied(nn.Module):
    """One matrix under two names, and two equal ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(16, 16, bias=False) for _ in range(3))
        self.second.weight = self.first.weight
        self.third.load_state_dict(self.first.state_dict())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(functional.relu(self.second(functional.relu(self.first(x)))))


class Recurrent(nn.Module):
    def __init__(self, recurrent: nn.Module) -> None:
        super().__init__()
        self.recurrent, self.head = recurrent, nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.recurrent(x.reshape(-1, 4, 4))[0][:, -1])


class Written(nn.Module):
    """The input is written into a buffer by a slice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.table = nn.Linear(16, 16, bias=False), nn.Parameter(torch.randn(1, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        place = x.new_zeros(x.shape[0], 32)
        place[:, :16] = self.inner(x)
        return place * torch.cat([self.table, self.table], 1)


MODELS = {
    "convolutions": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.Linear(128, 4),
    ),
    "spare heads": Spare,
    "constants": Constants,
    "tied": Tied,
    "gru": lambda: Recurrent(nn.GRU(4, 16, batch_first=True)),
    "lstm": lambda: Recurrent(nn.LSTM(4, 8, 2, batch_first=True, bidirectional=True)),
    "attention": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 8)), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten()
    ),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(16, 8)),
    "written by a slice": Written,
}


@pytest.mark.parametrize("name", MODELS)
def test_the_bound_is_what_the_exported_graph_stores(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    inputs = (torch.randn(2, 16),)
    exported = export_onnx(model, inputs)
    arrays = [numpy_helper.to_array(tensor) for tensor in exported.graph.initializer]
    stored = sum(array.size for array in arrays if array.ndim > 1 and array.dtype.kind == "f")
    everything = sum(array.size for array in arrays if array.dtype.kind == "f")
    assert 0 < fewest_stored_values(model, inputs) <= everything
    assert fewest_stored_values(model, inputs) >= 0.8 * stored
    assert model.training


def test_what_follows_from_no_input_costs_its_result_alone() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(50, 60))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.table.sum(1).sum() + self.table.mean(0)[:4]

    assert fewest_stored_values(Fixed(), (torch.randn(3, 4),)) == 5
