"""Low-rank pairs: two plain layers in place of one, from the singular value decomposition.

``W = U diag(S) V^T`` becomes ``first`` with weight ``sqrt(S) V^T`` and ``second`` with weight
``U sqrt(S)``. Both are ordinary layers, so training, pruning and export need no special case, and
the three factors are read back from the two weights at any time.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

RankRule = Literal["energy", "singular_values", "share"]
ROUND_TO = 8
"""Ranks are rounded up to multiples of this, the width of a vector register in floats."""

Decomposable = nn.Linear | nn.Conv2d


class LowRankPair(nn.Sequential):
    """``first`` (n -> r, no bias), then ``second`` (r -> m) stand for one Linear or Conv2d layer.

    A convolution is split by channels: ``first`` holds the kernel, ``second`` is 1x1, and n counts
    input channels times kernel positions.

    Args:
        first: Linear or Conv2d that maps to r features.
        second: Linear or 1x1 Conv2d that maps r to m features.
    """

    def __init__(self, first: Decomposable, second: Decomposable) -> None:
        super().__init__(first, second)

    @property
    def first(self) -> Decomposable:
        """The layer whose rows are ``sqrt(S_i) v_i``."""
        return self[0]  # type: ignore[return-value]

    @property
    def second(self) -> Decomposable:
        """The layer whose columns are ``sqrt(S_i) u_i``."""
        return self[1]  # type: ignore[return-value]

    @property
    def rank(self) -> int:
        """Features between the two layers."""
        return self.first.weight.shape[0]


def is_decomposable(module: nn.Module) -> bool:
    """Whether the module is a plain Linear or an ungrouped Conv2d.

    Subclasses are left out: some modules read the weight of such a child without calling it.
    """
    return type(module) is nn.Linear or (type(module) is nn.Conv2d and module.groups == 1)


def matrix(layer: Decomposable | LowRankPair) -> Tensor:
    """The weight as a matrix (m, n): m outputs, n inputs times kernel positions."""
    if isinstance(layer, LowRankPair):
        return layer.second.weight.flatten(1) @ layer.first.weight.flatten(1)
    return layer.weight.flatten(1)


def break_even_rank(layer: Decomposable | LowRankPair) -> float:
    """The rank mn / (m + n), below which a pair has fewer weights than the layer."""
    if isinstance(layer, LowRankPair):
        m, n = layer.second.weight.shape[0], layer.first.weight[0].numel()
    else:
        m, n = layer.weight.shape[0], layer.weight[0].numel()
    return m * n / (m + n)


def factors(pair: LowRankPair) -> tuple[Tensor, Tensor, Tensor]:
    """The factors of the pair's weight, differentiable.

    ``S_i = |row i of first| |column i of second|``; U and V are the normalised columns and rows.
    Straight after ``decompose`` they are the singular value decomposition; training moves them.

    Returns:
        U (m, r), S (r,), V (n, r).
    """
    rows = pair.first.weight.flatten(1)
    columns = pair.second.weight.flatten(1)
    row_norms = torch.linalg.vector_norm(rows, dim=1)
    column_norms = torch.linalg.vector_norm(columns, dim=0)
    smallest = torch.finfo(rows.dtype).tiny
    u = columns / column_norms.clamp_min(smallest)
    v = (rows / row_norms.clamp_min(smallest)[:, None]).T
    return u, row_norms * column_norms, v


@torch.no_grad()
def decompose(layer: Decomposable | LowRankPair, rank: int) -> LowRankPair:
    """The best pair of a rank in the Frobenius norm (Eckart and Young, 1936).

    Args:
        layer: A layer for which ``is_decomposable`` holds, or a pair to decompose anew.
        rank: From 1 to min(m, n); at min(m, n) the pair equals the layer up to rounding.

    Raises:
        ValueError: When the rank is out of range.
    """
    weight = matrix(layer)
    if not 1 <= rank <= min(weight.shape):
        raise ValueError(f"rank must be in [1, {min(weight.shape)}], got {rank}")
    u, s, vh = torch.linalg.svd(weight.double(), full_matrices=False)
    root = s[:rank].sqrt()
    pair = _empty_pair(layer, rank)
    _assign(pair.first, root[:, None] * vh[:rank], None)
    _assign(pair.second, u[:, :rank] * root, _bias(layer))
    pair.train(layer.training)
    return pair


@torch.no_grad()
def recompose(pair: LowRankPair) -> Decomposable:
    """The single layer that computes what the pair computes; inverse of ``decompose`` at full rank."""
    first, second = pair.first, pair.second
    weight = second.weight.double().flatten(1) @ first.weight.double().flatten(1)
    layer = _like(first, second.weight.shape[0], bias=second.bias is not None)
    _assign(layer, weight, second.bias)
    layer.train(pair.training)
    return layer


def choose_rank(singular_values: Tensor, rule: RankRule, threshold: float, break_even: float) -> int:
    """The rank that a rule asks for, at least 1.

    ``energy`` and ``singular_values`` take the smallest k whose cumulative share of sigma^2 or sigma
    reaches the threshold; ``share`` takes that share of the largest rank that saves weights.

    Args:
        singular_values: Descending, (min(m, n),).
        rule: Which rule.
        threshold: In (0, 1].
        break_even: mn / (m + n).
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
    """The rank rounded up to a multiple of ``ROUND_TO`` where that still saves weights."""
    rounded = math.ceil(rank / ROUND_TO) * ROUND_TO
    return rounded if rounded < break_even else rank


def _empty_pair(layer: Decomposable | LowRankPair, rank: int) -> LowRankPair:
    head = layer.first if isinstance(layer, LowRankPair) else layer
    tail = layer.second if isinstance(layer, LowRankPair) else layer
    outputs, bias, dtype = tail.weight.shape[0], tail.bias is not None, tail.weight.dtype
    first = _like(head, rank, bias=False)
    second: Decomposable
    if isinstance(head, nn.Linear):
        second = nn.Linear(rank, outputs, bias=bias, dtype=dtype, device="meta")
    else:
        second = nn.Conv2d(rank, outputs, 1, bias=bias, dtype=dtype, device="meta")
    return LowRankPair(first, second.to_empty(device=tail.weight.device))


def _like(layer: Decomposable, outputs: int, *, bias: bool) -> Decomposable:
    """A layer with the same inputs and geometry, uninitialised: initialising would draw random numbers."""
    dtype, device = layer.weight.dtype, layer.weight.device
    if isinstance(layer, nn.Linear):
        linear = nn.Linear(layer.in_features, outputs, bias=bias, dtype=dtype, device="meta")
        return linear.to_empty(device=device)
    convolution = nn.Conv2d(
        layer.in_channels,
        outputs,
        layer.kernel_size,  # type: ignore[arg-type]
        stride=layer.stride,  # type: ignore[arg-type]
        padding=layer.padding,  # type: ignore[arg-type]
        dilation=layer.dilation,  # type: ignore[arg-type]
        padding_mode=layer.padding_mode,
        bias=bias,
        dtype=dtype,
        device="meta",
    )
    return convolution.to_empty(device=device)


def _assign(layer: Decomposable, weight: Tensor, bias: Tensor | None) -> None:
    layer.weight.copy_(weight.reshape(layer.weight.shape))
    if bias is not None and layer.bias is not None:
        layer.bias.copy_(bias)


def _bias(layer: Decomposable | LowRankPair) -> Tensor | None:
    return layer.second.bias if isinstance(layer, LowRankPair) else layer.bias
