from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.low_rank.pairs import (
    LowRankPair,
    decompose,
    is_decomposable,
    pair_factors,
    reason_against_low_rank,
    recompose,
    weight_matrix,
)
from petra_optuna.nn.low_rank.ranks import break_even_rank, singular_values_of
from petra_optuna.nn.low_rank.split_layers import Decomposable, Split, Transposed
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
    "strided conv3d": (
        lambda: nn.Conv3d(3, 8, (3, 2, 3), stride=(1, 2, 1), padding=1, dilation=(1, 1, 2)),
        (2, 3, 5, 6, 7),
        "channel",
    ),
    "spatial conv3d": (
        lambda: nn.Conv3d(3, 8, 3, stride=(1, 2, 2), padding=(0, 1, 2), bias=False, padding_mode="circular"),
        (2, 3, 5, 6, 7),
        "spatial",
    ),
    "spatial conv3d of a plane": (
        lambda: nn.Conv3d(4, 6, (3, 3, 1), stride=(1, 2, 2), padding=(1, 1, 0)),
        (2, 4, 5, 6, 7),
        "spatial",
    ),
    "transposed conv1d": (
        lambda: nn.ConvTranspose1d(8, 5, 4, stride=2, padding=1, dilation=2),
        (2, 8, 7),
        "channel",
    ),
    "transposed conv": (
        lambda: nn.ConvTranspose2d(8, 4, (3, 2), stride=(2, 1), padding=(1, 0), output_padding=(1, 0)),
        (2, 8, 5, 6),
        "channel",
    ),
    "transposed conv to more channels": (
        lambda: nn.ConvTranspose2d(5, 9, 3, stride=2, bias=False),
        (2, 5, 4, 4),
        "channel",
    ),
    "transposed conv3d": (lambda: nn.ConvTranspose3d(6, 4, 2, stride=2), (2, 6, 3, 4, 3), "channel"),
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
    if isinstance(layer, Transposed):
        return weight.reshape(len(weight), -1).T
    if split == "channel":
        return weight.reshape(len(weight), -1)
    outputs, inputs, *kernel = weight.shape
    last = max(axis for axis, size in enumerate(kernel) if size > 1)
    others = kernel[:last] + kernel[last + 1 :]
    matrix = np.empty((outputs * kernel[last], inputs * int(np.prod(others))))
    for o, i, *at in np.ndindex(weight.shape):
        column = at.pop(last)
        row = i * int(np.prod(others)) + int(np.ravel_multi_index(at, others))
        matrix[o * kernel[last] + column, row] = weight[(o, i, *at[:last], column, *at[last:])]
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


def test_a_spatial_pair_of_a_volume_is_a_slice_then_the_last_dimension() -> None:
    pair = decompose(nn.Conv3d(4, 10, (3, 5, 7), stride=(1, 2, 3), padding=(1, 2, 3)), 6, "spatial")
    assert [tuple(part.weight.shape) for part in pair] == [(6, 4, 3, 5, 1), (10, 6, 1, 1, 7)]
    assert [part.stride for part in pair] == [(1, 2, 1), (1, 1, 3)]


def test_a_transposed_pair_mixes_channels_first_where_there_are_fewer_positions() -> None:
    layer = nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1)
    pair = decompose(layer, 3)
    assert [type(part) for part in pair] == [nn.Conv2d, nn.ConvTranspose2d]
    assert [tuple(part.weight.shape) for part in pair] == [(3, 8, 1, 1), (3, 6, 4, 4)]
    inputs = (torch.randn(2, 8, 5, 5),)
    assert count_parameters(pair) == 3 * (8 + 6 * 16) + 6
    assert count_macs(layer, inputs) == 25 * 8 * 6 * 16
    assert count_macs(pair, inputs) == 25 * 3 * (8 + 6 * 16)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv3d(6, 8, 3, padding=1),
        nn.ConvTranspose1d(6, 8, 3, stride=2),
        nn.ConvTranspose2d(8, 6, 2, stride=2),
        nn.ConvTranspose3d(6, 8, 2, stride=2, output_padding=1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_weight_of_rank_two_is_computed_by_a_pair_of_rank_two(layer: Decomposable) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        left, right = torch.randn(len(layer.weight), 2), torch.randn(2, layer.weight[0].numel())
        layer.weight.copy_((left @ right).reshape(layer.weight.shape))
    assert not isinstance(layer, nn.Linear | nn.Embedding)
    inputs = torch.randn(2, layer.in_channels, *[5] * len(layer.kernel_size))
    torch.testing.assert_close(decompose(layer, 2)(inputs), layer(inputs), rtol=1e-4, atol=1e-4)


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


class LearnedUpsampling(nn.ConvTranspose2d):
    """A class of somebody's own."""


def test_only_plain_layers_are_decomposable() -> None:
    attention = nn.MultiheadAttention(8, 2)
    assert is_decomposable(nn.Linear(4, 4))
    assert not is_decomposable(LowRankPair(nn.Linear(4, 2), nn.Linear(2, 4)))
    whole = {
        "groups": [
            nn.Conv2d(8, 8, 3, groups=8),
            nn.Conv1d(8, 8, 3, groups=2),
            nn.Conv3d(8, 8, 3, groups=4),
            nn.ConvTranspose2d(8, 8, 3, groups=2),
        ],
        "whole rows": [
            nn.Embedding(4, 4, max_norm=1.0),
            nn.Embedding(4, 4, sparse=True),
            nn.Embedding(4, 4, scale_grad_by_freq=True),
        ],
        "projected": [nn.LSTM(4, 4, proj_size=2)],
        "does not know NonDynamicallyQuantizableLinear": [attention.out_proj],
        "does not know": [attention, nn.RNN(4, 4), LearnedUpsampling(4, 4, 2), nn.EmbeddingBag(4, 4)],
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
