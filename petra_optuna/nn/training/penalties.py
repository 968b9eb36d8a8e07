"""Regularising penalties: on factors W = U diag(S) V^T, on weights, and on a model's steepness.

PETRA (arXiv 2510.09566) names all five and gives eq. 4-5 for the first two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from petra_optuna.nn.low_rank import Factors, singular_values_of

SMALLEST_SQUARE = 1e-19
"""Squared length below which a column counts as zero."""


def orthogonal_penalty(left: Tensor, right: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Orthogonality ``(||U^T U - I||_F^2 + ||V^T V - I||_F^2) / r^2`` of two factors (eq. 4).

    U has the columns of ``left`` at length 1, V the rows of ``right``, so these are sums of squared
    cosines; a column of zeros costs 1. It takes two products of matrices for each factor, one of them in the
    backward pass.

    Args:
        left: Left factor (m, r).
        right: Right factor (r, n).
        dtype: Type in which the products are taken; that of the factors by default.
    """
    return (_squared_cosines(left.T, dtype) + _squared_cosines(right, dtype)) / len(right) ** 2  # eq. 4


def _squared_cosines(rows: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Sum of squared cosines over all ordered pairs of two rows (r, n), and 1 for each row of zeros."""
    products: Tensor = _GramMatrix.apply(rows.to(dtype or rows.dtype))  # type: ignore[no-untyped-call]
    products = products.to(rows.dtype)
    squares = products.diagonal()
    scale = squares.clamp_min(SMALLEST_SQUARE).rsqrt()
    cosines = products * scale[:, None] * scale
    return 2 * cosines.triu(1).square().sum() + (squares < SMALLEST_SQUARE).sum()


class _GramMatrix(torch.autograd.Function):
    """``rows @ rows.T``, whose gradient needs one product where autograd takes two."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return rows @ rows.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        rows: Tensor = ctx.saved_tensors[0]
        return (gradient + gradient.T) @ rows


def hoyer_penalty(s: Tensor) -> Tensor:
    """Hoyer sparsity ``||S||_1 / ||S||_2`` (eq. 5): 1 for one non-zero value, sqrt(r) for r equal ones.

    Args:
        s: Singular values (r,). When all are zero the penalty is zero.
    """
    euclidean: Tensor = torch.linalg.vector_norm(s)
    return s.abs().sum() / euclidean.clamp_min(torch.finfo(s.dtype).tiny)  # eq. 5


def mean_orthogonal(factors: Iterable[Factors], dtype: torch.dtype | None = None) -> Tensor:
    """Mean ``(1/|D|) sum L_O`` of ``orthogonal_penalty`` over the factored matrices D (eq. 6).

    Args:
        factors: Factors of each matrix, at least one.
        dtype: Type in which the products are taken; that of the factors by default.
    """
    return torch.stack([orthogonal_penalty(left, right, dtype) for left, right in factors]).mean()


def mean_hoyer(factors: Iterable[Factors]) -> Tensor:
    """Mean ``(1/|D|) sum L_H`` of ``hoyer_penalty`` over the factored matrices D, at least one (eq. 6)."""
    return torch.stack([hoyer_penalty(singular_values_of(*pair)) for pair in factors]).mean()


def norm_penalty(weights: Sequence[Tensor]) -> Tensor:
    """Norm loss: mean over layers of ``sum over rows (1 - ||row||_2)^2`` (arXiv 2103.06583).

    The paper sums over layers as well; the mean makes one lambda fit shallow and deep models.

    Args:
        weights: One matrix (outputs, inputs) or kernel (outputs, ...) for each layer; at least one.
    """
    lengths = [torch.linalg.vector_norm(weight.flatten(1), dim=1) for weight in weights]
    return torch.stack([(1 - length).square().sum() for length in lengths]).mean()


def sparsity_penalty(weights: Iterable[Tensor], gradients: Iterable[Tensor]) -> Tensor:
    """Sparsity ``sum exp(-|dL/dw|) w^2`` with the gradients as constants (arXiv 2204.04977).

    It is a sum, not a mean, like weight decay: what it takes from one weight must not depend on how
    many others there are.

    Args:
        weights: Weights of any shapes.
        gradients: Gradients of the task's loss alone, in the same order and shapes.
    """
    pairs = zip(weights, gradients, strict=True)
    terms = [((-gradient.detach().abs()).exp() * weight.square()).sum() for weight, gradient in pairs]
    return torch.stack(terms).sum()


def trainable_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The trainable matrices and kernels: those that weight decay acts on."""
    return [weight for weight in model.parameters() if weight.requires_grad and weight.ndim > 1]


def lai_scale(steepness: Tensor, bound: float) -> Tensor:
    """Factor of each residual in the Lai loss: ``max(|k|, lambda) / (min(lambda, 1) sqrt(1 + k^2))``.

    Source: arXiv 2405.07884. The residual e, drawn upright at a point of the curve, has the part
    ``e |k| / sqrt(1 + k^2)`` along the curve's tangent and ``e / sqrt(1 + k^2)`` across it; the larger
    one counts. Below 1 lambda divides the first part, which punishes steep models; above 1 it
    multiplies the second, which punishes flat ones.

    Args:
        steepness: Steepness |k|, of any shape, not negative.
        bound: Bound lambda > 0.
    """
    return steepness.clamp_min(bound) / (min(bound, 1.0) * (1 + steepness.square()).sqrt())


def input_steepness(residuals: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of each sample's gradient with respect to its inputs (B,), differentiable.

    For residuals ``|f(x) - y|`` it is the norm of the gradient of f. Where batch statistics tie the
    samples of a batch together, a sample's part in the others' residuals counts as its own.

    Args:
        residuals: Residual of each sample (B,).
        inputs: Inputs (B, ...) that require gradients.
    """
    gradients = torch.autograd.grad(residuals.sum(), inputs, create_graph=True)
    rows = torch.cat([gradient.flatten(1) for gradient in gradients], 1)
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms
