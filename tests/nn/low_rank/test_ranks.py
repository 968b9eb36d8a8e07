from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from petra_optuna.nn.low_rank.ranks import (
    SVD,
    break_even_rank,
    choose_rank,
    kept_energy,
    round_rank,
    singular_values_of,
)

SHAPES = [(12, 20), (30, 6), (7, 7), (1, 9), (9, 1)]


def weight(shape: tuple[int, int]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def ill_conditioned() -> tuple[torch.Tensor, np.ndarray]:
    """Singular values from 1 down to 1e-12 and zeros, in double precision."""
    generator = torch.Generator().manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(24, 24, generator=generator, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(40, 40, generator=generator, dtype=torch.float64))
    values = torch.cat([10.0 ** -torch.arange(13), torch.zeros(11)]).double()
    return u @ torch.diag(values) @ v[:24], values.numpy()


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_are_numpys(shape: tuple[int, int]) -> None:
    singular_values = SVD.of(weight(shape)).singular_values
    assert singular_values.dtype == torch.float64
    np.testing.assert_allclose(
        singular_values, np.linalg.svd(weight(shape).double(), compute_uv=False), rtol=1e-7
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_factors_are_numpys_up_to_signs(shape: tuple[int, int]) -> None:
    rank = min(3, *shape)
    u, s, vh = np.linalg.svd(weight(shape).double().numpy(), full_matrices=False)
    left, right = (part.double() for part in SVD.of(weight(shape)).truncate(rank))
    found_s = singular_values_of(left, right).numpy()
    found_u, found_v = normalize(left, dim=0).numpy(), normalize(right, dim=1).T.numpy()
    np.testing.assert_allclose(found_s, s[:rank], rtol=1e-5)
    signs = np.sign((found_u * u[:, :rank]).sum(0))
    np.testing.assert_allclose(found_u * signs, u[:, :rank], atol=1e-4)
    np.testing.assert_allclose(found_v * signs, vh[:rank].T, atol=1e-4)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rank", [1, 5, 9, 20, 24])
def test_the_error_is_eckart_and_youngs_also_where_singular_values_are_noise(
    rank: int, transposed: bool
) -> None:
    matrix, values = ill_conditioned()
    left, right = SVD.of(matrix.T if transposed else matrix).truncate(rank)
    product = (left @ right).T if transposed else left @ right
    error = np.linalg.norm(product - matrix)
    noise = 1e-14 if rank == min(matrix.shape) else 1e-8
    assert error == pytest.approx(np.sqrt((values[rank:] ** 2).sum()), rel=1e-6, abs=noise)
    assert bool(left.isfinite().all() and right.isfinite().all())


def test_a_zero_matrix_splits_into_finite_factors_of_zero_values() -> None:
    left, right = SVD.of(torch.zeros(4, 6)).truncate(2)
    assert singular_values_of(left, right).tolist() == [0.0, 0.0]
    assert bool(left.isfinite().all() and right.isfinite().all())


@pytest.mark.parametrize("rank", [0, 13])
def test_a_rank_out_of_range_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=r"`rank` must be in \[1, 12\]"):
        SVD.of(torch.randn(20, 12)).truncate(rank)


def brute_force_rank(values: np.ndarray, threshold: float, power: int) -> int:
    shares = values**power / (values**power).sum()
    return next(k for k in range(1, len(values) + 1) if shares[:k].sum() >= threshold - 1e-12)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9, 0.99])
def test_rank_rules_against_brute_force(seed: int, threshold: float) -> None:
    values = np.sort(np.random.default_rng(seed).exponential(size=30))[::-1].copy()
    singular_values = torch.from_numpy(values)
    assert choose_rank(singular_values, "energy", threshold, 99.0) == brute_force_rank(values, threshold, 2)
    assert choose_rank(singular_values, "singular_values", threshold, 99.0) == brute_force_rank(
        values, threshold, 1
    )
    rank = choose_rank(singular_values, "energy", threshold, 99.0)
    assert kept_energy(singular_values, rank) >= threshold > kept_energy(singular_values, rank - 1)


def test_share_is_of_the_break_even_rank() -> None:
    limit = break_even_rank(48, 96)
    assert limit == pytest.approx(32)
    assert choose_rank(torch.ones(48), "share", 0.5, limit) == 16
    assert choose_rank(torch.ones(48), "share", 0.01, limit) == 1


def test_energy_keeps_few_where_the_spectrum_falls_fast() -> None:
    """The public code inverts the rule and keeps 63 of 64 where 7 do."""
    values = torch.tensor([0.85**k for k in range(64)])
    assert choose_rank(values, "energy", 0.9, 99.0) == 8


@pytest.mark.parametrize(
    ("rank", "limit", "expected"), [(1, 32.0, 8), (9, 32.0, 16), (7, 8.0, 7), (16, 17.0, 16)]
)
def test_ranks_are_rounded_up_only_where_that_still_saves(rank: int, limit: float, expected: int) -> None:
    assert round_rank(rank, limit) == expected
