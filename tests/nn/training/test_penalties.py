from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from petra_optuna.nn.training.penalties import (
    hoyer_penalty,
    input_steepness,
    lai_scale,
    mean_hoyer,
    mean_orthogonal,
    norm_penalty,
    orthogonal_penalty,
    sparsity_penalty,
)


def _equation_4(left: Tensor, right: Tensor) -> Tensor:
    """As it is written, with U and V of columns of length 1."""
    u, v = nn.functional.normalize(left, dim=0), nn.functional.normalize(right, dim=1).T
    identity = torch.eye(len(right), dtype=left.dtype)
    return ((u.T @ u - identity).square().sum() + (v.T @ v - identity).square().sum()) / len(right) ** 2


def test_equation_4_by_hand() -> None:
    left = torch.tensor([[5.0, 0.3], [0.0, 0.4]])
    right = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    # U = [[1, 0.6], [0, 0.8]], U^T U - I = [[0, 0.6], [0.6, 0]], V^T V - I = 0, r = 2
    assert orthogonal_penalty(left, right).item() == pytest.approx(2 * 0.36 / 4)


def test_equation_4_and_its_gradient_on_factors_of_any_lengths() -> None:
    left = torch.randn(9, 5, dtype=torch.float64).mul(torch.rand(5)).requires_grad_()
    right = torch.randn(5, 20, dtype=torch.float64).requires_grad_()
    penalty, expected = orthogonal_penalty(left, right), _equation_4(left, right)
    torch.testing.assert_close(penalty, expected)
    for one, other in zip(
        torch.autograd.grad(penalty, (left, right)), torch.autograd.grad(expected, (left, right)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_products_in_bfloat16_give_nearly_the_same() -> None:
    left, right = torch.randn(64, 32, requires_grad=True), torch.randn(32, 300, requires_grad=True)
    penalty, expected = orthogonal_penalty(left, right, torch.bfloat16), _equation_4(left, right)
    assert penalty.dtype == torch.float32
    torch.testing.assert_close(penalty, expected, rtol=1e-2, atol=0)
    for one, other in zip(
        torch.autograd.grad(penalty, (left, right)), torch.autograd.grad(expected, (left, right)), strict=True
    ):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 2e-2 * other.norm()


def test_columns_of_zeros_cost_1_and_have_finite_gradients() -> None:
    left, right = torch.eye(4)[:, :3].clone(), torch.eye(3, 5)
    left[:, 0] = right[2] = 0
    left.requires_grad_()
    right.requires_grad_()
    penalty = orthogonal_penalty(left, right)
    assert penalty.item() == pytest.approx(2 / 9)
    assert penalty.item() == pytest.approx(_equation_4(left, right).item())
    for gradient in torch.autograd.grad(penalty, (left, right)):
        assert gradient.isfinite().all()


def test_orthonormal_factors_cost_nothing() -> None:
    u, s, vh = torch.linalg.svd(torch.randn(6, 9, dtype=torch.float64), full_matrices=False)
    assert orthogonal_penalty(u * s, vh).item() == pytest.approx(0.0, abs=1e-20)


def test_equation_5_by_hand_and_at_its_bounds() -> None:
    assert hoyer_penalty(torch.tensor([3.0, 4.0])).item() == pytest.approx(7 / 5)
    assert hoyer_penalty(torch.tensor([0.0, 5.0, 0.0])).item() == pytest.approx(1.0)
    assert hoyer_penalty(torch.full((16,), 0.3)).item() == pytest.approx(math.sqrt(16))


def test_scale_does_not_matter_to_hoyer() -> None:
    s = torch.rand(8) + 0.1
    torch.testing.assert_close(hoyer_penalty(s), hoyer_penalty(100 * s))


def test_gradients_agree_with_finite_differences() -> None:
    left = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    right = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    s = torch.rand(6, dtype=torch.float64).add(0.1).requires_grad_()
    assert torch.autograd.gradcheck(orthogonal_penalty, (left, right))
    assert torch.autograd.gradcheck(hoyer_penalty, (s,))


def test_a_zero_spectrum_has_a_finite_gradient() -> None:
    s = torch.zeros(4, requires_grad=True)
    value = hoyer_penalty(s)
    value.backward()
    assert value.item() == 0.0
    assert s.grad is not None
    assert torch.isfinite(s.grad).all()


def test_means_are_over_matrices_and_match_equation_6() -> None:
    identity = torch.eye(3)[:, :2]
    skewed = torch.tensor([[1.0, 0.6], [0.0, 0.8]])
    factors = [
        (identity * torch.tensor([6.0, 0.5]), skewed.T),
        (identity[:, :1], 2 * identity[:, :1].T),
    ]
    assert mean_orthogonal(factors).item() == pytest.approx((2 * 0.36 / 4 + 0) / 2)
    assert mean_hoyer(factors).item() == pytest.approx((6.5 / (36.25**0.5) + 1) / 2)


def test_norm_loss_by_hand_is_a_mean_over_layers() -> None:
    linear = torch.tensor([[3.0, 4.0], [0.6, 0.8]])  # rows of length 5 and 1
    kernel = torch.full((1, 2, 1, 2), 1.0)  # one row of length 2
    assert norm_penalty([linear]).item() == pytest.approx(16)
    assert norm_penalty([linear, kernel]).item() == pytest.approx((16 + 1) / 2)


def test_norm_loss_agrees_with_finite_differences() -> None:
    weights = [
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 4), (2, 3, 2, 2))
    ]
    assert torch.autograd.gradcheck(lambda *given: norm_penalty(given), weights)


def test_norm_loss_of_an_empty_row_has_a_finite_gradient() -> None:
    weight = torch.zeros(2, 3, requires_grad=True)
    norm_penalty([weight]).backward()
    assert weight.grad is not None
    assert torch.isfinite(weight.grad).all()


def test_sparsity_by_hand_shrinks_what_the_loss_is_insensitive_to() -> None:
    weight, gradient = torch.tensor([[2.0, 3.0]]), torch.tensor([[0.0, -1.0]])
    assert sparsity_penalty([weight], [gradient]).item() == pytest.approx(4 + 9 * math.exp(-1))


def test_sparsity_agrees_with_finite_differences_where_the_sensitivity_is_a_constant() -> None:
    weight = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    gradient = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: sparsity_penalty([given], [gradient.detach()]), (weight,))
    sparsity_penalty([weight], [gradient]).backward()
    assert gradient.grad is None


@pytest.mark.parametrize("k", [0.0, 0.3, 0.5, 1.0, 2.0, 30.0])
@pytest.mark.parametrize("bound", [1e-2, 0.5, 1.0, 4.0])
def test_lai_scale_is_the_larger_part_of_the_residual(k: float, bound: float) -> None:
    """The paper's two cases, with the angle of the tangent spelled out."""
    angle = math.atan(k)
    along, across = math.sin(angle), math.cos(angle)
    expected = max(along / bound, across) if bound < 1 else max(along, bound * across)
    assert lai_scale(torch.tensor(k, dtype=torch.float64), bound).item() == pytest.approx(expected)


def test_lai_punishes_steep_models_below_one_and_flat_ones_above() -> None:
    flat, steep = torch.tensor(0.01), torch.tensor(10.0)
    assert lai_scale(steep, 0.1) > 5 * lai_scale(flat, 0.1)
    assert lai_scale(flat, 10.0) > 5 * lai_scale(steep, 10.0)


def test_steepness_is_the_length_of_each_samples_own_gradient() -> None:
    values, more = torch.randn(4, 2, 3, requires_grad=True), torch.randn(4, 2, requires_grad=True)
    residuals = (values.flatten(1) @ torch.arange(6.0)) * torch.arange(1.0, 5.0) + 2 * more.sum(1)
    expected = [(55 * (index + 1) ** 2 + 8) ** 0.5 for index in range(4)]
    assert input_steepness(residuals, [values, more]).tolist() == pytest.approx(expected)


def test_lai_of_a_small_network_agrees_with_finite_differences() -> None:
    inputs = torch.randn(5, 3, dtype=torch.float64)

    def scaled(first: Tensor, second: Tensor) -> Tensor:
        watched = inputs.clone().requires_grad_()
        residuals = (torch.tanh(watched @ first) @ second - 2.0).abs().flatten()
        return (lai_scale(input_steepness(residuals, [watched]), 0.1) * residuals).mean()

    weights = tuple(
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 4), (4, 1))
    )
    assert torch.autograd.gradcheck(scaled, weights)
