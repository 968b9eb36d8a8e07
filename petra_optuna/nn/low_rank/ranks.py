"""Decomposition of a matrix, the rank that a rule asks for, and the factors of that rank."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

import scipy.linalg
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from petra_optuna.nn.surgery import VECTOR_WIDTH

RankRule = Literal["energy", "singular_values", "share"]
SINGLE_FROM = 512
"""Side from which eigenvectors are found in single precision: it halves the seconds that they take there."""

Factors = tuple[Tensor, Tensor]
"""Left (m, r) and right (r, n), whose product stands for a matrix (m, n)."""


def break_even_rank(rows: int, columns: int) -> float:
    """Rank mn / (m + n), below which two factors have fewer weights than the matrix (m, n)."""
    return rows * columns / (rows + columns)


def choose_rank(singular_values: Tensor, rule: RankRule, threshold: float, break_even: float) -> int:
    """Choose the rank that a rule asks for, at least 1.

    ``energy`` and ``singular_values`` take the smallest k whose cumulative share of sigma^2 or sigma
    reaches the threshold; ``share`` takes that share of the largest rank that saves weights.

    Args:
        singular_values: Singular values, descending, (min(m, n),).
        rule: Name of the rule.
        threshold: Threshold of the rule, in (0, 1].
        break_even: Break-even rank mn / (m + n).
    """
    if rule == "share":
        return max(1, math.floor(threshold * break_even))
    values = singular_values.double()
    weights = values.square() if rule == "energy" else values
    cumulative = weights.cumsum(0)
    if cumulative[-1] == 0:
        return 1
    reached = cumulative >= threshold * cumulative[-1]
    return int(reached.int().argmax()) + 1


def round_rank(rank: int, break_even: float) -> int:
    """Round the rank up to a multiple of ``VECTOR_WIDTH`` where that still saves weights."""
    rounded = math.ceil(rank / VECTOR_WIDTH) * VECTOR_WIDTH
    return rounded if rounded < break_even else rank


def kept_energy(singular_values: Tensor, rank: int) -> float:
    """Share of sigma^2 that the first ``rank`` values hold; 1 where all are zero."""
    squares = singular_values.double().square()
    total = float(squares.sum())
    return float(squares[:rank].sum()) / total if total else 1.0


@dataclasses.dataclass(frozen=True)
class SVD:
    """Singular value decomposition of a matrix (m, n), from which factors of any rank follow.

    It comes from the eigenvalues of the smaller Gram matrix, several times as fast as a decomposition of the
    matrix itself, in double precision, or in single where that Gram matrix has a side of at least
    ``SINGLE_FROM``. Singular values below 1e-8 of the largest are noise, in single precision below 1e-3.

    Attributes:
        matrix: Matrix that was decomposed, (m, n).
        singular_values: Singular values, descending, (min(m, n),), in double precision.
        basis: Singular vectors of the shorter side as columns, in the precision that they were found in.
    """

    matrix: Tensor
    singular_values: Tensor
    basis: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, matrix: Tensor) -> SVD:
        """Decompose a matrix (m, n)."""
        weight = matrix.double() if min(matrix.shape) < SINGLE_FROM else matrix.float()
        wide = weight.shape[0] <= weight.shape[1]
        squares, basis = _eigh(weight @ weight.T if wide else weight.T @ weight)
        return cls(matrix.detach(), squares.flip(0).double().clamp_min(0).sqrt(), basis.flip(1))

    @torch.no_grad()
    def truncate(self, rank: int) -> Factors:
        """Factors ``U sqrt(S)`` (m, r) and ``sqrt(S) V^T`` (r, n), the best pair in the Frobenius norm.

        One factor is the basis and the other the matrix in that basis, so their product is a projection:
        exact at full rank, and elsewhere within the noise (see the class) of the smallest error possible
        (Eckart and Young, 1936).

        Args:
            rank: Rank from 1 to min(m, n); at min(m, n) the product equals the matrix up to rounding.

        Raises:
            ValueError: When the rank is out of range.
        """
        if not 1 <= rank <= len(self.singular_values):
            raise ValueError(f"`rank` must be in [1, {len(self.singular_values)}], got {rank}")
        basis = self.basis[:, :rank]
        weight = self.matrix.to(basis.dtype)
        wide = weight.shape[0] <= weight.shape[1]
        image = (basis.T @ weight) if wide else (weight @ basis).T
        root = torch.linalg.vector_norm(image, dim=1, keepdim=True).sqrt()
        scaled = image / root.clamp_min(torch.finfo(root.dtype).tiny)
        left, right = (basis * root.T, scaled) if wide else (scaled.T, root * basis.T)
        return left.to(self.matrix.dtype), right.to(self.matrix.dtype)


def _eigh(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """``torch.linalg.eigh``, by SciPy's LAPACK on as many threads as PyTorch has.

    On AMD processors that is 1.5 to 2.5 times as fast as the library that PyTorch is built with.
    """
    with _threadpools().limit(limits=torch.get_num_threads(), user_api="blas"):
        values, vectors = scipy.linalg.eigh(symmetric.numpy(force=True), driver="evd", check_finite=False)
    return torch.from_numpy(values).to(symmetric.device), torch.from_numpy(vectors).to(symmetric.device)


@functools.cache
def _threadpools() -> ThreadpoolController:
    return ThreadpoolController()


def singular_values_of(left: Tensor, right: Tensor) -> Tensor:
    """Singular values S (r,) of ``left @ right`` from its factors (m, r) and (r, n), differentiable.

    ``S_i = |column i of left| |row i of right|``, the singular values straight after ``SVD.truncate``;
    training moves them.
    """
    values: Tensor = torch.linalg.vector_norm(left, dim=0) * torch.linalg.vector_norm(right, dim=1)
    return values
