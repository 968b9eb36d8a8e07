"""Low-rank pairs: two plain layers in place of one, from the singular value decomposition.

``W = U diag(S) V^T`` becomes ``first`` with weight ``sqrt(S) V^T`` and ``second`` with weight
``U sqrt(S)``. Both are ordinary layers, so training, pruning and export need no special case. U, S and V
follow from the pair at any time: the normalised columns of the second weight, the products of the lengths
of columns and rows, and the normalised rows of the first weight.

The weight of a layer as a matrix (m, n) is ``out x in`` for Linear, ``features x entries`` for Embedding,
``out x (in k k)`` for a convolution by channels, ``(out k k) x in`` for a transposed one, and
``(out k) x (in k)`` for a convolution by space: of two dimensions a column of the kernel, then a row
(Jaderberg et al., 2014, scheme 2), of three a slice along the first two dimensions, then the third.
"""

from __future__ import annotations

import typing

import torch
from torch import Tensor, nn

from petra_optuna.nn.low_rank.factored_recurrent import is_recurrent
from petra_optuna.nn.low_rank.ranks import SVD, Factors
from petra_optuna.nn.low_rank.split_layers import (
    ONE_POSITION,
    Convolution,
    Decomposable,
    Split,
    Transposed,
    joined_geometry,
    split_axis,
    split_geometry,
)
from petra_optuna.nn.surgery import has_hooks

_PAIRS = {
    (nn.Linear, nn.Linear),
    (nn.Conv1d, nn.Conv1d),
    (nn.Conv2d, nn.Conv2d),
    (nn.Conv3d, nn.Conv3d),
    (nn.Embedding, nn.Linear),
    *((first, second) for second, first in ONE_POSITION.items()),
}
_CONVOLUTIONS = (*typing.get_args(Convolution), *typing.get_args(Transposed))
_FIRST_POSITION = 2
"""Dimension of a convolution's weight at which the kernel begins."""


class LowRankPair(nn.Sequential):
    """Two layers in place of one: ``first`` (n -> r, no bias), then ``second`` (r -> m).

    Args:
        first: Layer that maps n to r features; it holds the kernel, or all but one of its dimensions, and in
            front of a transposed convolution one position.
        second: Layer that maps r to m features: Linear behind Linear and Embedding, a convolution
            of one position, or of the kernel's other dimension, behind a convolution; or a transposed one.

    Raises:
        ValueError: When the two are no such pair.
    """

    def __init__(self, first: Decomposable, second: Decomposable) -> None:
        if (type(first), type(second)) not in _PAIRS:
            raise ValueError(f"{type(first).__name__} and {type(second).__name__} are no low-rank pair")
        if isinstance(first, nn.Embedding) and second.bias is not None:
            raise ValueError("a low-rank pair of an embedding has no bias: an embedding has none")
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
        """Number of features between the two layers."""
        return self.second.weight.shape[0 if isinstance(self.second, Transposed) else 1]

    @property
    def split(self) -> Split:
        """Whether the weight is a matrix by channels or by space."""
        return (
            "spatial" if isinstance(self.second, Convolution) and _positions(self.second) > 1 else "channel"
        )


def is_decomposable(module: nn.Module) -> bool:
    """Whether ``decompose`` takes the module; ``reason_against_low_rank`` says why not."""
    if isinstance(module, Convolution | Transposed) and type(module) in _CONVOLUTIONS:
        return module.groups == 1
    if type(module) is nn.Embedding:
        return module.max_norm is None and not module.sparse and not module.scale_grad_by_freq
    return type(module) is nn.Linear


def reason_against_low_rank(module: nn.Module) -> str | None:
    """Reason why a layer with a weight matrix stays whole; None where it need not, and for other modules.

    Subclasses stay whole: some modules read the weight of such a child without calling it.
    """
    if is_decomposable(module) or is_recurrent(module):
        return "its calls pass through hooks" if has_hooks(module) else None
    if type(module) in _CONVOLUTIONS:
        return "its channels are in groups"
    if type(module) is nn.Embedding:
        return "max_norm, sparse and scale_grad_by_freq belong to whole rows"
    if type(module) is nn.LSTM:
        return "its hidden state is projected (proj_size)"
    unknown = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.EmbeddingBag, nn.RNNBase)
    if isinstance(module, (*unknown, nn.Bilinear, nn.MultiheadAttention)):
        return f"low rank does not know {type(module).__name__}"
    return None


def weight_matrix(layer: Decomposable | LowRankPair, split: Split = "channel") -> Tensor:
    """The weight as a matrix (m, n), differentiable.

    Args:
        layer: Layer, or pair, of which its own split counts.
        split: Whether the weight of a convolution is a matrix by channels or by space.
    """
    if isinstance(layer, LowRankPair):
        return _left(layer) @ _right(layer)
    if isinstance(layer, nn.Embedding):
        return layer.weight.T
    if isinstance(layer, Transposed):
        return layer.weight.flatten(1).T
    if split == "spatial":
        return layer.weight.movedim(_FIRST_POSITION + _axis(layer), 1).flatten(2).flatten(0, 1)
    return layer.weight.flatten(1)


def pair_factors(pair: LowRankPair) -> Factors:
    """Factors ``U sqrt(S)`` (m, r) and ``sqrt(S) V^T`` (r, n) of the pair's weight, differentiable."""
    return _left(pair), _right(pair)


def decompose(layer: Decomposable | LowRankPair, rank: int, split: Split = "channel") -> LowRankPair:
    """Decompose a layer into the best pair of a rank in the Frobenius norm (Eckart and Young, 1936).

    Args:
        layer: Layer for which ``is_decomposable`` holds, or a pair to decompose anew by its own split.
        rank: Rank from 1 to min(m, n); at min(m, n) the pair equals the layer up to rounding.
        split: Whether the weight of a convolution is a matrix by channels or by space.

    Raises:
        ValueError: When the rank is out of range.
    """
    return assemble_pair(layer, SVD.of(weight_matrix(layer, split)).truncate(rank), split)


@torch.no_grad()
def assemble_pair(
    layer: Decomposable | LowRankPair, factors: Factors, split: Split = "channel"
) -> LowRankPair:
    """Make a pair of these factors that replaces a layer or pair.

    Args:
        layer: Layer or pair that gives geometry, bias, mode, device, dtype, and whether it is frozen; a pair
            its split as well.
        factors: Left (m, r) and right (r, n) factor.
        split: Whether the weight of a convolution is a matrix by channels or by space.
    """
    if isinstance(layer, LowRankPair):
        return assemble_pair(recompose(layer), factors, layer.split)
    left, right = factors
    rank = len(right)
    pair = LowRankPair(*split_geometry(layer, rank, split))
    first, second = pair.first.weight, pair.second.weight
    if isinstance(layer, nn.Embedding):
        first.copy_(right.T)
        padding = layer.padding_idx
        if padding is not None and not layer.weight[padding].any():
            first[padding] = 0  # the eigenvectors' rounding is not quite zero
    else:
        first.copy_(right.reshape(first.shape))
    if isinstance(pair.second, Transposed):
        second.copy_(left.T.reshape(second.shape))
    else:
        positions = _positions(pair.second)
        second.copy_(left.reshape(-1, positions, rank).transpose(1, 2).reshape(second.shape))
    for factor in (first, second):
        factor.requires_grad_(layer.weight.requires_grad)
    _copy_bias(layer, pair.second)
    pair.train(layer.training)
    return pair


@torch.no_grad()
def recompose(pair: LowRankPair) -> Decomposable:
    """Make the single layer that computes what the pair computes; inverse of ``decompose`` at full rank."""
    weight = (_left(pair).double() @ _right(pair).double()).to(pair.first.weight.dtype)
    layer = joined_geometry(pair.first, pair.second)
    if isinstance(layer, nn.Embedding):
        layer.weight.copy_(weight.T)
    elif isinstance(layer, Transposed):
        layer.weight.copy_(weight.T.reshape(layer.weight.shape))
    elif pair.split == "spatial":
        moved = layer.weight.movedim(_FIRST_POSITION + _axis(layer), 1)
        moved.copy_(weight.reshape(moved.shape))
    else:
        layer.weight.copy_(weight.reshape(layer.weight.shape))
    layer.weight.requires_grad_(pair.second.weight.requires_grad)
    _copy_bias(pair.second, layer)
    layer.train(pair.training)
    return layer


def _axis(layer: Decomposable) -> int:
    axis = split_axis(layer)
    if axis is None:
        raise ValueError(f"{layer} has no kernel to split by space")
    return axis


def _positions(layer: Decomposable) -> int:
    """Number of positions of the kernel; 1 where there is none."""
    return layer.weight[0, 0].numel()


def _copy_bias(source: Decomposable, target: Decomposable) -> None:
    if isinstance(source, nn.Embedding) or isinstance(target, nn.Embedding):
        return
    if source.bias is not None and target.bias is not None:
        target.bias.copy_(source.bias)
        target.bias.requires_grad_(source.bias.requires_grad)


def _left(pair: LowRankPair) -> Tensor:
    """The second weight as (m, r)."""
    weight = pair.second.weight
    if isinstance(pair.second, Transposed):
        return weight.flatten(1).T
    return weight.reshape(*weight.shape[:2], -1).transpose(1, 2).flatten(0, 1)


def _right(pair: LowRankPair) -> Tensor:
    """The first weight as (r, n)."""
    weight = pair.first.weight
    return weight.T if isinstance(pair.first, nn.Embedding) else weight.flatten(1)
