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


LENGTH, WIDTH, HIDDEN = 16, 64, 128
IN_ATTENTION = LENGTH * 4 * WIDTH**2 + 2 * LENGTH**2 * WIDTH
"""Four projections of each position, and two products of each two positions."""
IN_ENCODER_LAYER = IN_ATTENTION + 2 * LENGTH * WIDTH * HIDDEN


class Attending(nn.Module):
    """One of the ways to write attention down.

    Args:
        way: ``module``, ``function`` or ``products``.
    """

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.whole = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, values: Tensor) -> Tensor:
        if self.way == "module":
            return self.whole(values, values, values, need_weights=False)[0]
        batch, length, _ = values.shape
        q, k, v = self.qkv(values).reshape(batch, length, 3, 4, -1).permute(2, 0, 3, 1, 4)
        if self.way == "function":
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(batch, length, -1))


@pytest.mark.parametrize("way", ["module", "function", "products"])
def test_attention_by_hand_in_each_way_that_it_is_written(way: str) -> None:
    for batch in (1, 3):
        assert count_macs(Attending(way), (torch.randn(batch, LENGTH, WIDTH),)) == IN_ATTENTION


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_layers_by_hand(batch_first: bool, norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, 4, HIDDEN, batch_first=batch_first, norm_first=norm_first)
    values = torch.randn(LENGTH, LENGTH, WIDTH)  # as long as the batch, so that the order does not matter
    assert count_macs(layer, (values,)) == IN_ENCODER_LAYER
    encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    assert count_macs(encoder.eval(), (values,)) == 3 * IN_ENCODER_LAYER


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
