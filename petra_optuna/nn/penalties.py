"""Regularisers of factored weights W = U diag(S) V^T (PETRA, arXiv 2510.09566, eq. 4-6)."""

from __future__ import annotations

import torch
from torch import Tensor


def orthogonal_penalty(u: Tensor, v: Tensor) -> Tensor:
    """``(||U^T U - I||_F^2 + ||V^T V - I||_F^2) / r^2`` (eq. 4).

    Args:
        u: Left factor (m, r).
        v: Right factor (n, r).
    """
    rank = u.shape[1]
    identity = torch.eye(rank, dtype=u.dtype, device=u.device)
    left = (u.T @ u - identity).square().sum()
    right = (v.T @ v - identity).square().sum()
    return (left + right) / rank**2


def hoyer_penalty(s: Tensor) -> Tensor:
    """``||S||_1 / ||S||_2`` (eq. 5): 1 for a single non-zero value, sqrt(r) for r equal ones.

    Args:
        s: Singular values (r,). When all are zero the penalty is zero.
    """
    euclidean: Tensor = torch.linalg.vector_norm(s)
    return s.abs().sum() / euclidean.clamp_min(torch.finfo(s.dtype).tiny)
