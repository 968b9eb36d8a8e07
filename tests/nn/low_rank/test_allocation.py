from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from petra_optuna.nn.counting import count_parameters
from petra_optuna.nn.low_rank.allocation import allocate
from petra_optuna.nn.low_rank.pairs import LowRankPair, decompose
from petra_optuna.nn.low_rank.ranks import SVD, break_even_rank, round_rank
from petra_optuna.nn.low_rank.reduce import reduce_together

SHAPES = [(24, 40), (64, 48), (10, 64), (96, 96)]


def decompositions_of(seed: int) -> list[SVD]:
    generator = np.random.default_rng(seed)
    decompositions = []
    for rows, columns in SHAPES:
        values = generator.uniform(0.6, 0.99) ** np.arange(columns) * generator.uniform(0.01, 100)
        weight = torch.from_numpy(generator.normal(size=(rows, columns)) * values)
        decompositions.append(SVD.of(weight))
    return decompositions


def whole(decompositions: list[SVD]) -> list[int]:
    return [svd.matrix.numel() for svd in decompositions]


def kept(svd: SVD, rank: int, power: int) -> float:
    values = svd.singular_values**power
    return float(values[:rank].sum() / values.sum())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), threshold=st.floats(0.3, 0.99), power=st.sampled_from([1, 2]))
def test_no_fewer_weights_keep_as_much(seed: int, threshold: float, power: int) -> None:
    """Taking one singular value back misses the threshold, and a trade of one for another loses."""
    decompositions = decompositions_of(seed)
    ranks = allocate(
        decompositions, whole(decompositions), "energy" if power == 2 else "singular_values", threshold
    )
    average = [kept(svd, rank, power) for svd, rank in zip(decompositions, ranks, strict=True)]
    assert np.mean(average) >= threshold - 1e-9
    values = [svd.singular_values**power for svd in decompositions]
    worth = [
        (part / part.sum() / sum(svd.matrix.shape)).tolist()
        for part, svd in zip(values, decompositions, strict=True)
    ]
    taken = [
        (values[rank - 1], row)
        for row, (values, rank) in enumerate(zip(worth, ranks, strict=True))
        if rank > 1
    ]
    left = [values[rank] for values, rank in zip(worth, ranks, strict=True) if rank < len(values)]
    if taken:
        least, row = min(taken)
        assert least >= max(left, default=0.0)
        loss = float(values[row][ranks[row] - 1] / values[row].sum())
        assert np.mean(average) - loss / len(decompositions) < threshold


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_share_is_what_is_left_of_the_weights(share: float, seed: int) -> None:
    decompositions = decompositions_of(seed)
    ranks = allocate(decompositions, whole(decompositions), "share", share)
    left = 0
    for svd, rank in zip(decompositions, ranks, strict=True):
        limit = break_even_rank(*svd.matrix.shape)
        left += min(svd.matrix.numel(), round_rank(rank, limit) * sum(svd.matrix.shape))
    total = sum(whole(decompositions))
    assert left <= share * total
    assert left >= share * total - 8 * max(sum(shape) for shape in SHAPES)


def test_scale_does_not_matter_and_size_does() -> None:
    torch.manual_seed(0)
    small, large = torch.randn(32, 32), torch.randn(256, 256)
    ranks = [
        allocate([SVD.of(small * scale), SVD.of(large)], [32**2, 256**2], "share", 0.5)
        for scale in (1e-3, 1.0, 1e3)
    ]
    assert all(rank == ranks[0] for rank in ranks)
    assert ranks[0][0] >= break_even_rank(32, 32)  # stays whole
    assert ranks[0][1] < 128


def test_a_matrix_of_zeros_costs_least() -> None:
    zero, other = SVD.of(torch.zeros(32, 32)), SVD.of(torch.randn(32, 32))
    for rule, threshold in itertools.product(("energy", "singular_values"), (0.8, 0.99)):
        ranks = allocate([zero, other], [1024, 1024], rule, threshold)  # type: ignore[arg-type]
        assert ranks[0] == 1 < ranks[1]


def test_what_is_factored_counts_by_what_it_costs_now() -> None:
    torch.manual_seed(0)
    layers: dict[str, nn.Module] = {"pair": decompose(nn.Linear(64, 64), 24), "linear": nn.Linear(64, 64)}
    before = sum(count_parameters(layer) - 64 for layer in layers.values())
    reduced = reduce_together(layers, "share", 0.5)
    after = sum(count_parameters(reduced[name].layer or layers[name]) - 64 for name in layers)
    assert 0.3 * before < after <= 0.5 * before
    pair = reduced["pair"].layer
    assert isinstance(pair, LowRankPair)
    assert pair.rank < 24


@pytest.mark.parametrize("side", [96, 600])
def test_both_precisions_find_the_best_factors(side: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(side, side) * 0.99 ** torch.arange(side)
    svd = SVD.of(weight)
    exact = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(svd.singular_values, exact, atol=1e-3 * exact[0])
    for rank in (side // 10, side // 2):
        left, right = svd.truncate(rank)
        error = float(torch.linalg.matrix_norm(weight - left @ right))
        assert error == pytest.approx(np.sqrt((exact[rank:] ** 2).sum()), rel=1e-4)
    left, right = svd.truncate(side)
    torch.testing.assert_close(left @ right, weight, rtol=1e-4, atol=1e-4 * float(exact[0]) / side)
