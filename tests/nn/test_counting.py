from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.low_rank import decompose, factorize_fully


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 7))
        self.tail = nn.Linear(5, 7)
        self.tail.weight = nn.Parameter(self.weight.detach().T.clone())
        self.twin = nn.Linear(5, 7)
        self.twin.weight = self.tail.weight

    def forward(self, values: Tensor) -> Tensor:
        return self.twin(torch.relu(functional.linear(values, self.weight))) + self.tail(values[:, :5])


def test_tied_tensors_count_once() -> None:
    assert count_parameters(Functional()) == 35 + 35 + 7 + 7


def test_functional_calls_and_modules_count_per_sample() -> None:
    for batch in (1, 4):
        assert count_macs(Functional(), (torch.randn(batch, 7),)) == 3 * 35


def test_convolution_by_hand_and_by_keyword() -> None:
    model = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
    assert count_macs(model, {"input": torch.randn(2, 3, 10, 10)}) == 5 * 5 * 8 * 3 * 9


def test_counting_changes_neither_mode_nor_statistics() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    model[2].eval()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    count_macs(model, (torch.randn(3, 4),))
    assert [module.training for module in model.modules()] == [True, True, True, False]
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


class Last(nn.Module):
    """The last step of a recurrent layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, values: Tensor) -> Tensor:
        return self.layer(values)[0][:, -1]


@pytest.mark.parametrize(("kind", "gates"), [(nn.GRU, 3), (nn.LSTM, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent_layers_by_hand_and_factored_as_whole(
    kind: type[nn.GRU] | type[nn.LSTM], gates: int, bias: bool
) -> None:
    """Per time step G h (n + h), in each direction of each layer."""
    steps, width, hidden = 7, 5, 8
    per_step = {
        (1, False): gates * hidden * (width + hidden),
        (2, False): gates * hidden * (width + hidden + hidden + hidden),
        (2, True): 2 * gates * hidden * (width + hidden + 2 * hidden + hidden),
    }
    for (layers, bidirectional), expected in per_step.items():
        layer = kind(width, hidden, layers, bias=bias, batch_first=True, bidirectional=bidirectional)
        factored, _ = factorize_fully(copy.deepcopy(layer))
        for model in (layer, factored):
            for batch in (1, 3):
                assert count_macs(Last(model), (torch.randn(batch, steps, width),)) == steps * expected
        assert not any(module._forward_hooks for module in factored.modules())


def test_looking_up_an_embedding_costs_nothing_and_its_pair_the_product() -> None:
    layer, tokens = nn.Embedding(50, 16), torch.randint(0, 50, (3, 6))
    assert count_macs(layer, (tokens,)) == 0
    assert count_macs(decompose(layer, 4), (tokens,)) == 6 * 4 * 16
