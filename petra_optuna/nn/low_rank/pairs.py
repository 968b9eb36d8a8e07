"""Low-rank pairs: two plain layers in place of one, from the singular value decomposition.

``W = U diag(S) V^T`` becomes ``first`` with weight ``sqrt(S) V^T`` and ``second`` with weight
``U sqrt(S)``. Both are ordinary layers, so training, pruning and export need no special case. U, S and V
follow from the pair at any time: the normalised columns of the second weight, the products of the lengths
of columns and rows, and the normalised rows of the first weight.

The weight of a layer as a matrix (m, n) is ``out x in`` for Linear, ``features x entries`` for Embedding,
``out x (in k k)`` for a convolution by channels, and ``(out k) x (in k)`` for Conv2d by space: a column of
the kernel, then a row (Jaderberg et al., 2014, scheme 2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from petra_optuna.nn.low_rank.factored_recurrent import (
    FactoredRecurrent,
    assemble_recurrent,
    is_recurrent,
    is_trained,
    matrix_names,
    weight_of,
)
from petra_optuna.nn.low_rank.ranks import SVD, Factors
from petra_optuna.nn.low_rank.split_layers import Decomposable, Split, joined_geometry, split_geometry
from petra_optuna.nn.surgery import replace_module, shared_layers

_PAIRS = {
    (nn.Linear, nn.Linear),
    (nn.Conv1d, nn.Conv1d),
    (nn.Conv2d, nn.Conv2d),
    (nn.Embedding, nn.Linear),
}


class LowRankPair(nn.Sequential):
    """Two layers in place of one: ``first`` (n -> r, no bias), then ``second`` (r -> m).

    Args:
        first: Layer that maps n to r features; it holds the kernel, or the kernel's first dimension alone.
        second: Layer that maps r to m features: Linear behind Linear and Embedding, a convolution
            of one position, or of the kernel's other dimension, behind a convolution.

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
        return self.second.weight.shape[1]

    @property
    def split(self) -> Split:
        """Whether the weight is a matrix by channels or by space."""
        return "spatial" if self.second.weight[0, 0].numel() > 1 else "channel"


def is_decomposable(module: nn.Module) -> bool:
    """Whether ``decompose`` takes the module; ``reason_against_low_rank`` says why not."""
    if type(module) is nn.Conv1d or type(module) is nn.Conv2d:
        return module.groups == 1
    if type(module) is nn.Embedding:
        return module.max_norm is None and not module.sparse and not module.scale_grad_by_freq
    return type(module) is nn.Linear


def reason_against_low_rank(module: nn.Module) -> str | None:
    """Reason why a layer with a weight matrix stays whole; None where it need not, and for other modules.

    Subclasses stay whole: some modules read the weight of such a child without calling it.
    """
    if is_decomposable(module) or is_recurrent(module):
        return None
    if type(module) in (nn.Conv1d, nn.Conv2d):
        return "its channels are in groups"
    if type(module) is nn.Embedding:
        return "max_norm, sparse and scale_grad_by_freq belong to whole rows"
    if type(module) is nn.LSTM:
        return "its hidden state is projected (proj_size)"
    unknown = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.EmbeddingBag, nn.RNNBase)
    if isinstance(module, (*unknown, nn.Bilinear, nn.MultiheadAttention)):
        return f"low rank does not know {type(module).__name__}"
    return None


def has_spatial_split(layer: Decomposable) -> bool:
    """Whether the kernel has two dimensions to split."""
    return isinstance(layer, nn.Conv2d) and min(layer.kernel_size) > 1


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
    if split == "spatial":
        return layer.weight.permute(0, 3, 1, 2).flatten(2).flatten(0, 1)
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
    positions = second[0, 0].numel()
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
    elif isinstance(layer, nn.Conv2d) and pair.split == "spatial":
        rows, columns = layer.kernel_size
        shaped = weight.reshape(layer.out_channels, columns, layer.in_channels, rows)
        layer.weight.copy_(shaped.permute(0, 2, 3, 1))
    else:
        layer.weight.copy_(weight.reshape(layer.weight.shape))
    layer.weight.requires_grad_(pair.second.weight.requires_grad)
    _copy_bias(pair.second, layer)
    layer.train(pair.training)
    return layer


def trainable_factors(model: nn.Module) -> dict[str, Factors]:
    """Factors of everything in a model that is factored and not frozen.

    Returns:
        Factors by the name of each pair, and by the torch name of each factored matrix of a recurrent
        layer, for example ``encoder.weight_hh_l0``.
    """
    factors: dict[str, Factors] = {}
    for name, module in model.named_modules():
        if isinstance(module, LowRankPair):
            factors[name] = pair_factors(module)
        elif isinstance(module, FactoredRecurrent):
            for matrix in module.ranks:
                factors[f"{name}.{matrix}" if name else matrix] = module.factors(matrix)
    return {name: pair for name, pair in factors.items() if pair[0].requires_grad}


def decomposable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Pairs, recurrent layers, and decomposable layers outside pairs, by name."""
    layers: dict[str, nn.Module] = {}
    inside_pairs: set[nn.Module] = set()
    for name, module in model.named_modules():
        if isinstance(module, LowRankPair):
            inside_pairs |= set(module.children())
        elif module in inside_pairs or not (is_decomposable(module) or is_recurrent(module)):
            continue
        layers[name] = module
    return layers


def shared_names(model: nn.Module) -> set[str]:
    """Names of layers and pairs that share a parameter with another name."""
    shared = shared_layers(model)
    return shared | {owner.rpartition(".")[0] for owner in shared}


def factorize_fully(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Replace every whole layer that shares no weight and is not frozen by factors of full rank, in place.

    Returns:
        The model, or its replacement where it is one layer, and the names of the layers: Linear,
        Conv1d, Conv2d (by channels), Embedding, GRU and LSTM (each matrix).
    """
    shared = shared_names(model)
    names = []
    for name, layer in decomposable_layers(model).items():
        if name in shared or isinstance(layer, LowRankPair | FactoredRecurrent):
            continue
        if isinstance(layer, nn.GRU | nn.LSTM):
            whole = {matrix: weight_of(layer, matrix) for matrix in matrix_names(layer)}
            factors = {
                matrix: SVD.of(weight).truncate(min(weight.shape)) if is_trained(layer, matrix) else weight
                for matrix, weight in whole.items()
            }
            if not any(is_trained(layer, matrix) for matrix in whole):
                continue
            model = replace_module(model, name, assemble_recurrent(layer, factors))
        else:
            assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Embedding)
            if not layer.weight.requires_grad:
                continue
            model = replace_module(model, name, decompose(layer, min(weight_matrix(layer).shape)))
        names.append(name)
    return model, tuple(names)


def merge_factors(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """Replace pairs and factored recurrent layers of these names by plain layers, in place.

    Returns:
        The model, or its replacement where it is one layer.
    """
    for name in names:
        layer = model.get_submodule(name)
        if isinstance(layer, LowRankPair):
            model = replace_module(model, name, recompose(layer))
        elif isinstance(layer, FactoredRecurrent):
            whole = {matrix: weight_of(layer, matrix) for matrix in matrix_names(layer)}
            model = replace_module(model, name, assemble_recurrent(layer, whole))
    return model


def _copy_bias(source: Decomposable, target: Decomposable) -> None:
    if isinstance(source, nn.Embedding) or isinstance(target, nn.Embedding):
        return
    if source.bias is not None and target.bias is not None:
        target.bias.copy_(source.bias)
        target.bias.requires_grad_(source.bias.requires_grad)


def _left(pair: LowRankPair) -> Tensor:
    """The second weight as (m, r)."""
    weight = pair.second.weight
    return weight.reshape(*weight.shape[:2], -1).transpose(1, 2).flatten(0, 1)


def _right(pair: LowRankPair) -> Tensor:
    """The first weight as (r, n)."""
    weight = pair.first.weight
    return weight.T if isinstance(pair.first, nn.Embedding) else weight.flatten(1)
