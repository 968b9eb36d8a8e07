from __future__ import annotations

import math

import pytest
import torch

from petra_optuna.nn.penalties import hoyer_penalty, orthogonal_penalty


def test_equation_4_by_hand() -> None:
    u = torch.tensor([[1.0, 1.0], [0.0, 2.0]])
    v = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    # U^T U - I = [[0, 1], [1, 4]], V^T V - I = [[3, 0], [0, 0]], r = 2
    assert orthogonal_penalty(u, v).item() == pytest.approx((0 + 1 + 1 + 16 + 9) / 4)


def test_orthonormal_factors_cost_nothing() -> None:
    u, _, vh = torch.linalg.svd(torch.randn(6, 9, dtype=torch.float64), full_matrices=False)
    assert orthogonal_penalty(u, vh.T).item() == pytest.approx(0.0, abs=1e-20)


def test_equation_5_by_hand_and_at_its_bounds() -> None:
    assert hoyer_penalty(torch.tensor([3.0, 4.0])).item() == pytest.approx(7 / 5)
    assert hoyer_penalty(torch.tensor([0.0, 5.0, 0.0])).item() == pytest.approx(1.0)
    assert hoyer_penalty(torch.full((16,), 0.3)).item() == pytest.approx(math.sqrt(16))


def test_scale_does_not_matter_to_hoyer() -> None:
    s = torch.rand(8) + 0.1
    torch.testing.assert_close(hoyer_penalty(s), hoyer_penalty(100 * s))


def test_gradients_agree_with_finite_differences() -> None:
    u = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    v = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    s = torch.rand(6, dtype=torch.float64).add(0.1).requires_grad_()
    assert torch.autograd.gradcheck(orthogonal_penalty, (u, v))
    assert torch.autograd.gradcheck(hoyer_penalty, (s,))


def test_a_zero_spectrum_has_a_finite_gradient() -> None:
    s = torch.zeros(4, requires_grad=True)
    value = hoyer_penalty(s)
    value.backward()
    assert value.item() == 0.0
    assert s.grad is not None
    assert torch.isfinite(s.grad).all()
