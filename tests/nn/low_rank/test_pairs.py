from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from petra_optuna.nn.low_rank.factored_recurrent import matrix_names
from petra_optuna.nn.low_rank.pairs import (
    LowRankPair,
    decompose,
    factorize_fully,
    is_decomposable,
    merge_factors,
    pair_factors,
    reason_against_low_rank,
    recompose,
    trainable_factors,
    weight_matrix,
)
from petra_optuna.nn.low_rank.ranks import break_even_rank, singular_values_of
from petra_optuna.nn.low_rank.split_layers import Decomposable, Split
from petra_optuna.nn.training.penalties import orthogonal_penalty

LAYERS: dict[str, tuple[Callable[[], Decomposable], tuple[int, ...], Split]] = {
    "linear": (lambda: nn.Linear(12, 20), (3, 12), "channel"),
    "wide linear without bias": (lambda: nn.Linear(30, 6, bias=False), (3, 30), "channel"),
    "sequence": (lambda: nn.Linear(12, 20), (2, 5, 12), "channel"),
    "conv1d": (lambda: nn.Conv1d(4, 10, 3, padding=1), (2, 4, 9), "channel"),
    "strided dilated conv1d": (
        lambda: nn.Conv1d(4, 10, 3, stride=2, padding=2, dilation=2, bias=False, padding_mode="replicate"),
        (2, 4, 9),
        "channel",
    ),
    "conv": (lambda: nn.Conv2d(4, 10, 3, padding=1), (2, 4, 8, 8), "channel"),
    "strided dilated conv": (
        lambda: nn.Conv2d(4, 10, 3, stride=2, padding=2, dilation=2, bias=False, padding_mode="circular"),
        (2, 4, 9, 9),
        "channel",
    ),
    "same-padded conv": (lambda: nn.Conv2d(4, 10, (3, 1), padding="same"), (2, 4, 8, 8), "channel"),
    "spatial conv": (lambda: nn.Conv2d(4, 10, 3, padding=1), (2, 4, 8, 8), "spatial"),
    "strided dilated spatial conv": (
        lambda: nn.Conv2d(
            4, 10, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(2, 3), bias=False, padding_mode="reflect"
        ),
        (2, 4, 9, 9),
        "spatial",
    ),
    "same-padded spatial conv": (lambda: nn.Conv2d(5, 4, (3, 5), padding="same"), (2, 5, 8, 8), "spatial"),
    "embedding": (lambda: nn.Embedding(40, 8), (2, 5), "channel"),
    "padded embedding": (lambda: nn.Embedding(6, 10, padding_idx=2), (2, 5), "channel"),
}


def made(case: str) -> tuple[Decomposable, Tensor, Split]:
    torch.manual_seed(0)
    factory, shape, split = LAYERS[case]
    layer = factory()
    entries = isinstance(layer, nn.Embedding)
    return layer, torch.randint(0, 6, shape) if entries else torch.randn(shape), split


def as_matrix(layer: Decomposable, split: Split) -> np.ndarray:
    """The weight as a matrix, element by element."""
    weight = layer.weight.detach().double().numpy()
    if isinstance(layer, nn.Embedding):
        return np.transpose(weight)
    if split == "channel":
        return weight.reshape(len(weight), -1)
    outputs, inputs, rows, columns = weight.shape
    matrix = np.empty((outputs * columns, inputs * rows))
    for o, i, a, b in np.ndindex(weight.shape):
        matrix[o * columns + b, i * rows + a] = weight[o, i, a, b]
    return matrix


@pytest.mark.parametrize("case", LAYERS)
def test_full_rank_pair_computes_what_the_layer_computes_and_recomposes_to_it(case: str) -> None:
    layer, inputs, split = made(case)
    pair = decompose(layer, min(weight_matrix(layer, split).shape), split)
    assert pair.split == split
    torch.testing.assert_close(pair(inputs), layer(inputs), rtol=1e-5, atol=1e-5)
    whole = recompose(pair)
    assert type(whole) is type(layer)
    assert repr(whole) == repr(layer)
    torch.testing.assert_close(whole.weight, layer.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(whole(inputs), layer(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("rank", [1, 3])
def test_error_is_the_smallest_possible(case: str, rank: int) -> None:
    """Eckart and Young: the squared error is the sum of the squared singular values left out."""
    layer, _, split = made(case)
    weight = as_matrix(layer, split)
    spectrum = np.linalg.svd(weight, compute_uv=False)
    pair = decompose(layer, rank, split)
    assert pair.rank == rank
    error = np.linalg.norm(weight_matrix(pair).detach().double().numpy() - weight)
    assert error == pytest.approx(np.sqrt((spectrum[rank:] ** 2).sum()), rel=1e-5)


@pytest.mark.parametrize("case", LAYERS)
def test_factors_after_decomposition_are_the_singular_value_decomposition(case: str) -> None:
    layer, _, split = made(case)
    left, right = pair_factors(decompose(layer, 4, split))
    u, v = normalize(left, dim=0), normalize(right, dim=1).T
    weight = torch.from_numpy(as_matrix(layer, split)).float()
    expected = torch.linalg.svdvals(weight)
    torch.testing.assert_close(singular_values_of(left, right), expected[:4], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(u.T @ u, torch.eye(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(v.T @ v, torch.eye(4), rtol=0, atol=1e-5)
    assert u.shape == (weight.shape[0], 4)
    assert v.shape == (weight.shape[1], 4)


def test_a_spatial_pair_is_a_column_of_the_kernel_then_a_row() -> None:
    layer = nn.Conv2d(4, 10, (3, 5), stride=(2, 1), padding=(1, 2))
    pair = decompose(layer, 6, "spatial")
    assert [tuple(part.weight.shape) for part in pair] == [(6, 4, 3, 1), (10, 6, 1, 5)]
    assert [part.stride for part in pair] == [(2, 1), (1, 1)]
    assert [part.padding for part in pair] == [(1, 0), (0, 2)]
    assert pair(torch.randn(2, 4, 9, 9)).shape == layer(torch.randn(2, 4, 9, 9)).shape


def test_the_row_of_the_padding_index_stays_zero() -> None:
    for entries, features in ((40, 8), (6, 10)):
        layer = nn.Embedding(entries, features, padding_idx=2)
        pair = decompose(layer, 4)
        assert isinstance(pair.first, nn.Embedding)
        assert pair.first.padding_idx == 2
        assert not pair(torch.tensor([2])).any()
        pair(torch.arange(entries)).square().sum().backward()
        assert not pair.first.weight.grad[2].any()  # type: ignore[index]


def test_factors_give_the_weight_back_after_training_has_moved_it_and_are_differentiable() -> None:
    pair = decompose(nn.Linear(12, 20), 4)
    with torch.no_grad():
        pair.first.weight.mul_(torch.rand_like(pair.first.weight))
        pair.second.weight.add_(torch.rand_like(pair.second.weight))
    left, right = pair_factors(pair)
    torch.testing.assert_close(left @ right, weight_matrix(pair))
    (singular_values_of(left, right).sum() + orthogonal_penalty(left, right)).backward()
    assert all(bool(p.grad is not None and p.grad.isfinite().all()) for p in (pair[0].weight, pair[1].weight))


def test_factors_of_a_zero_weight_have_finite_gradients() -> None:
    layer = nn.Linear(4, 4)
    nn.init.zeros_(layer.weight)
    pair = decompose(layer, 2)
    left, right = pair_factors(pair)
    s = singular_values_of(left, right)
    assert s.tolist() == [0.0, 0.0]
    (s.sum() + orthogonal_penalty(left, right)).backward()
    assert bool(pair.first.weight.grad.isfinite().all())  # type: ignore[union-attr]


@pytest.mark.parametrize("rank", range(1, 10))
def test_a_pair_saves_exactly_below_the_break_even_rank(rank: int) -> None:
    layer = nn.Conv2d(4, 10, 3, bias=False)
    for split in ("channel", "spatial"):
        limit = break_even_rank(*weight_matrix(layer, split).shape)
        weights = sum(parameter.numel() for parameter in decompose(layer, rank, split).parameters())
        assert (weights < layer.weight.numel()) == (rank < limit)


@pytest.mark.parametrize("case", LAYERS)
def test_a_pair_is_decomposed_anew_by_its_own_split_and_keeps_bias_and_geometry(case: str) -> None:
    layer, inputs, split = made(case)
    smaller = decompose(decompose(layer, 5, split), 2)
    direct = decompose(layer, 2, split)
    torch.testing.assert_close(smaller(inputs), direct(inputs), rtol=1e-4, atol=1e-5)
    assert repr(smaller) == repr(direct)


def test_decomposition_draws_no_random_numbers_and_leaves_the_layer_alone() -> None:
    layer = nn.Linear(12, 20)
    kept = layer.weight.clone()
    state = torch.get_rng_state()
    recompose(decompose(layer, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(layer.weight, kept)


def test_only_plain_layers_are_decomposable() -> None:
    attention = nn.MultiheadAttention(8, 2)
    assert is_decomposable(nn.Linear(4, 4))
    assert not is_decomposable(LowRankPair(nn.Linear(4, 2), nn.Linear(2, 4)))
    whole = {
        "groups": [nn.Conv2d(8, 8, 3, groups=8), nn.Conv1d(8, 8, 3, groups=2)],
        "whole rows": [
            nn.Embedding(4, 4, max_norm=1.0),
            nn.Embedding(4, 4, sparse=True),
            nn.Embedding(4, 4, scale_grad_by_freq=True),
        ],
        "projected": [nn.LSTM(4, 4, proj_size=2)],
        "does not know NonDynamicallyQuantizableLinear": [attention.out_proj],
        "does not know": [attention, nn.RNN(4, 4), nn.ConvTranspose2d(4, 4, 3), nn.EmbeddingBag(4, 4)],
    }
    for reason, modules in whole.items():
        for module in modules:
            assert not is_decomposable(module)
            assert reason in str(reason_against_low_rank(module))
    for module in (nn.Linear(4, 4), nn.GRU(4, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Sequential()):
        assert reason_against_low_rank(module) is None


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Linear(4, 2), nn.Conv2d(2, 4, 1)),
        (nn.Embedding(4, 2), nn.Linear(2, 4)),
        (nn.ReLU(), nn.Linear(2, 4)),
    ],
)
def test_what_is_no_pair_is_refused(layers: tuple[nn.Module, nn.Module]) -> None:
    with pytest.raises(ValueError, match="low-rank pair"):
        LowRankPair(*layers)  # type: ignore[arg-type]


class Everything(nn.Module):
    """A layer of each kind, a pair, a grouped and two tied layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 8, padding_idx=0)
        self.conv = nn.Conv1d(8, 12, 3, padding=1)
        self.grouped = nn.Conv1d(12, 12, 3, padding=1, groups=12)
        self.image = nn.Conv2d(1, 4, 3, padding=1)
        self.gru = nn.GRU(12, 10, 2, batch_first=True, bidirectional=True)
        self.lstm = nn.LSTM(20, 10, batch_first=True, bias=False)
        self.pair = decompose(nn.Linear(40, 10), 4)
        self.tied = nn.ModuleList([nn.Linear(10, 10), nn.Linear(10, 10)])
        self.tied[1].weight = self.tied[0].weight

    def forward(self, tokens: Tensor) -> Tensor:
        values = self.grouped(self.conv(self.embed(tokens).transpose(1, 2))).transpose(1, 2)
        values = self.lstm(self.gru(values)[0])[0]
        hidden = self.pair(self.image(values[:, None]).mean(2).flatten(1))
        return self.tied[1](self.tied[0](hidden))


WHOLE = ("embed", "conv", "image", "gru", "lstm")


def test_all_layers_of_their_own_weight_become_factors_of_full_rank_and_whole_again() -> None:
    torch.manual_seed(0)
    model, tokens = Everything().eval(), torch.randint(0, 30, (3, 7))
    factored, names = factorize_fully(copy.deepcopy(model))
    assert names == WHOLE
    torch.testing.assert_close(factored(tokens), model(tokens), rtol=1e-4, atol=1e-5)
    factors = trainable_factors(factored)
    recurrent = [f"gru.{name}" for name in matrix_names(model.gru)]
    recurrent += [f"lstm.{name}" for name in matrix_names(model.lstm)]
    assert list(factors) == ["embed", "conv", "image", *recurrent, "pair"]
    for name, (left, right) in factors.items():
        if name in recurrent:
            assert len(right) == min(len(left), right.shape[1])
            torch.testing.assert_close(left @ right, model.get_parameter(name), rtol=1e-4, atol=1e-5)
    merged = merge_factors(factored, names)
    assert repr(merged) == repr(model)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(merged.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_factors_of_all_kinds_are_differentiable() -> None:
    model, _ = factorize_fully(Everything())
    sum(singular_values_of(*pair).sum() for pair in trainable_factors(model).values()).backward()  # type: ignore[union-attr]
    trained = {name.split(".")[0] for name, value in model.named_parameters() if value.grad is not None}
    assert trained == {*WHOLE, "pair"}


@pytest.mark.parametrize("whole", [lambda: nn.Linear(6, 4), lambda: nn.LSTM(6, 4)])
def test_a_model_that_is_one_layer_is_replaced(whole: Callable[[], nn.Module]) -> None:
    factored, names = factorize_fully(whole())
    assert names == ("",)
    assert trainable_factors(factored)
    assert repr(merge_factors(factored, names)) == repr(whole())
