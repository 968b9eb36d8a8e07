from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from petra_optuna.nn.low_rank import (
    LowRankPair,
    break_even_rank,
    choose_rank,
    decompose,
    factors,
    is_decomposable,
    matrix,
    recompose,
    round_rank,
)

LAYERS = {
    "linear": (lambda: nn.Linear(12, 20), (3, 12)),
    "wide linear without bias": (lambda: nn.Linear(30, 6, bias=False), (3, 30)),
    "sequence": (lambda: nn.Linear(12, 20), (2, 5, 12)),
    "conv": (lambda: nn.Conv2d(4, 10, 3, padding=1), (2, 4, 8, 8)),
    "strided dilated conv": (
        lambda: nn.Conv2d(4, 10, 3, stride=2, padding=2, dilation=2, bias=False, padding_mode="circular"),
        (2, 4, 9, 9),
    ),
    "same-padded conv": (lambda: nn.Conv2d(4, 10, (3, 1), padding="same"), (2, 4, 8, 8)),
}


def made(case: str) -> tuple[nn.Linear | nn.Conv2d, Tensor]:
    torch.manual_seed(0)
    factory, shape = LAYERS[case]
    return factory(), torch.randn(shape)


@pytest.mark.parametrize("case", LAYERS)
def test_full_rank_pair_computes_what_the_layer_computes_and_recomposes_to_it(case: str) -> None:
    layer, inputs = made(case)
    pair = decompose(layer, min(matrix(layer).shape))
    torch.testing.assert_close(pair(inputs), layer(inputs), rtol=1e-4, atol=1e-5)
    whole = recompose(pair)
    assert type(whole) is type(layer)
    assert repr(whole) == repr(layer)
    torch.testing.assert_close(whole(inputs), layer(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("rank", [1, 3])
def test_error_is_the_smallest_possible(case: str, rank: int) -> None:
    """Eckart and Young: the squared error is the sum of the squared singular values left out."""
    layer, _ = made(case)
    weight = matrix(layer).detach().double().numpy()
    spectrum = np.linalg.svd(weight, compute_uv=False)
    pair = decompose(layer, rank)
    error = np.linalg.norm(matrix(pair).detach().double().numpy() - weight)
    assert error == pytest.approx(np.sqrt((spectrum[rank:] ** 2).sum()), rel=1e-5)


@pytest.mark.parametrize("case", LAYERS)
def test_factors_after_decomposition_are_the_singular_value_decomposition(case: str) -> None:
    layer, _ = made(case)
    u, s, v = factors(decompose(layer, 5))
    weight = matrix(layer).detach()
    _, expected, _ = torch.linalg.svd(weight)
    torch.testing.assert_close(s, expected[:5], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(u.T @ u, torch.eye(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(v.T @ v, torch.eye(5), rtol=0, atol=1e-5)
    assert u.shape == (weight.shape[0], 5)
    assert v.shape == (weight.shape[1], 5)


def test_factors_give_the_weight_back_after_training_has_moved_it_and_are_differentiable() -> None:
    pair = decompose(nn.Linear(12, 20), 4)
    with torch.no_grad():
        pair.first.weight.mul_(torch.rand_like(pair.first.weight))
        pair.second.weight.add_(torch.rand_like(pair.second.weight))
    u, s, v = factors(pair)
    torch.testing.assert_close(u @ torch.diag(s) @ v.T, matrix(pair))
    (s.sum() + u.sum() + v.sum()).backward()
    assert all(bool(p.grad is not None and p.grad.isfinite().all()) for p in (pair[0].weight, pair[1].weight))


def test_factors_of_a_zero_weight_have_finite_gradients() -> None:
    layer = nn.Linear(4, 4)
    nn.init.zeros_(layer.weight)
    pair = decompose(layer, 2)
    u, s, v = factors(pair)
    assert s.tolist() == [0.0, 0.0]
    (s.sum() + u.sum() + v.sum()).backward()
    assert bool(pair.first.weight.grad.isfinite().all())  # type: ignore[union-attr]


def brute_force_rank(values: np.ndarray, threshold: float, power: int) -> int:
    shares = values**power / (values**power).sum()
    return next(k for k in range(1, len(values) + 1) if shares[:k].sum() >= threshold - 1e-12)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9, 0.99])
def test_rank_rules_against_brute_force(seed: int, threshold: float) -> None:
    values = np.sort(np.random.default_rng(seed).exponential(size=30))[::-1].copy()
    spectrum = torch.from_numpy(values)
    assert choose_rank(spectrum, "energy", threshold, 99.0) == brute_force_rank(values, threshold, 2)
    assert choose_rank(spectrum, "singular_values", threshold, 99.0) == brute_force_rank(values, threshold, 1)


def test_share_is_of_the_break_even_rank() -> None:
    layer = nn.Linear(96, 48)
    assert break_even_rank(layer) == pytest.approx(32)
    assert choose_rank(torch.ones(48), "share", 0.5, break_even_rank(layer)) == 16
    assert choose_rank(torch.ones(48), "share", 0.01, break_even_rank(layer)) == 1


def test_energy_keeps_few_where_the_spectrum_falls_fast() -> None:
    """The public code inverts the rule and keeps 63 of 64 where 7 do."""
    spectrum = torch.tensor([0.85**k for k in range(64)])
    assert choose_rank(spectrum, "energy", 0.9, 99.0) == 8


@pytest.mark.parametrize(
    ("rank", "limit", "expected"), [(1, 32.0, 8), (9, 32.0, 16), (7, 8.0, 7), (16, 17.0, 16)]
)
def test_ranks_are_rounded_up_only_where_that_still_saves(rank: int, limit: float, expected: int) -> None:
    assert round_rank(rank, limit) == expected


@pytest.mark.parametrize("rank", range(1, 10))
def test_a_pair_saves_exactly_below_the_break_even_rank(rank: int) -> None:
    layer = nn.Conv2d(4, 10, 3, bias=False)
    weights = sum(parameter.numel() for parameter in decompose(layer, rank).parameters())
    assert (weights < layer.weight.numel()) == (rank < break_even_rank(layer))


def test_a_pair_is_decomposed_anew_and_keeps_its_bias_and_geometry() -> None:
    layer = nn.Conv2d(8, 16, 3, stride=2, padding=1)
    smaller = decompose(decompose(layer, 12), 4)
    direct = decompose(layer, 4)
    images = torch.randn(2, 8, 9, 9)
    torch.testing.assert_close(smaller(images), direct(images), rtol=1e-4, atol=1e-5)
    assert smaller.rank == 4
    assert break_even_rank(smaller) == break_even_rank(layer)


def test_decomposition_draws_no_random_numbers_and_leaves_the_layer_alone() -> None:
    layer = nn.Linear(12, 20)
    kept = layer.weight.clone()
    state = torch.get_rng_state()
    recompose(decompose(layer, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(layer.weight, kept)


@pytest.mark.parametrize("rank", [0, 13])
def test_a_rank_out_of_range_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=r"rank must be in \[1, 12\]"):
        decompose(nn.Linear(12, 20), rank)


def test_only_plain_layers_are_decomposable() -> None:
    attention = nn.MultiheadAttention(8, 2)
    assert is_decomposable(nn.Linear(4, 4))
    assert not is_decomposable(attention.out_proj)
    assert not is_decomposable(nn.Conv2d(8, 8, 3, groups=8))
    assert not is_decomposable(LowRankPair(nn.Linear(4, 2), nn.Linear(2, 4)))
