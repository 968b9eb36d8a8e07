"""Low-rank pairs: two plain layers in place of one, from the singular value decomposition.

``W = U diag(S) V^T`` becomes ``first`` with weight ``sqrt(S) V^T`` and ``second`` with weight
``U sqrt(S)``. Both are ordinary layers, so training, pruning and export need no special case, and U, S
and V are at any time the normalised columns of one, the products of the lengths, and the normalised rows
of the other.

What a weight is as a matrix (m, n): Linear ``out x in``, Embedding ``features x entries``, a
convolution by channels ``out x (in k k)``, and Conv2d by space ``(out k) x (in k)``: a column of
the kernel, then a row (Jaderberg et al., 2014, scheme 2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from petra_optuna.nn.low_rank.factored_recurrent import (
    FactoredRecurrent,
    assemble,
    is_recurrent,
    matrix_names,
    weight_of,
)
from petra_optuna.nn.low_rank.ranks import Factors, Spectrum
from petra_optuna.nn.low_rank.split_layers import Decomposable, Split, joined_geometry, split_geometry
from petra_optuna.nn.surgery import replace_module, shared_layers

_PAIRS = {
    (nn.Linear, nn.Linear),
    (nn.Conv1d, nn.Conv1d),
    (nn.Conv2d, nn.Conv2d),
    (nn.Embedding, nn.Linear),
}


class LowRankPair(nn.Sequential):
    """``first`` (n -> r, no bias), then ``second`` (r -> m) stand for one layer.

    Args:
        first: Layer that maps to r features; holds the kernel, or its first dimension alone.
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
        """Features between the two layers."""
        return self.second.weight.shape[1]

    @property
    def split(self) -> Split:
        """How the weight is a matrix."""
        return "spatial" if self.second.weight[0, 0].numel() > 1 else "channel"


def is_decomposable(module: nn.Module) -> bool:
    """Whether ``decompose`` takes the module: see ``why_whole`` for those that it does not."""
    if type(module) is nn.Conv1d or type(module) is nn.Conv2d:
        return module.groups == 1
    if type(module) is nn.Embedding:
        return module.max_norm is None and not module.sparse and not module.scale_grad_by_freq
    return type(module) is nn.Linear


def why_whole(module: nn.Module) -> str | None:
    """Why a layer with a weight matrix stays whole; None for those that need not, and for other modules.

    Subclasses stay: some modules read the weight of such a child without calling it.
    """
    if is_decomposable(module) or is_recurrent(module):
        return None
    if type(module) in (nn.Conv1d, nn.Conv2d):
        return "its channels are in groups"
    if type(module) is nn.Embedding:
        return "max_norm, sparse and scale_grad_by_freq belong to whole rows"
    if type(module) is nn.LSTM:
        return "its hidden state is projected (proj_size)"
    kinds = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.EmbeddingBag, nn.RNNBase)
    if isinstance(module, (*kinds, nn.Bilinear, nn.MultiheadAttention)):
        return f"low rank does not know {type(module).__name__}"
    return None


def has_spatial_split(layer: Decomposable) -> bool:
    """Whether the kernel has two dimensions to split."""
    return isinstance(layer, nn.Conv2d) and min(layer.kernel_size) > 1


def matrix(layer: Decomposable | LowRankPair, split: Split = "channel") -> Tensor:
    """The weight as a matrix (m, n), differentiable.

    Args:
        layer: A layer, or a pair, whose own split counts.
        split: How the weight of a convolution is a matrix.
    """
    if isinstance(layer, LowRankPair):
        return _left(layer) @ _right(layer)
    if isinstance(layer, nn.Embedding):
        return layer.weight.T
    if split == "spatial":
        return layer.weight.permute(0, 3, 1, 2).flatten(2).flatten(0, 1)
    return layer.weight.flatten(1)


def factors(pair: LowRankPair) -> Factors:
    """``U sqrt(S)`` (m, r) and ``sqrt(S) V^T`` (r, n), whose product is the pair's weight, differentiable."""
    return _left(pair), _right(pair)


def decompose(layer: Decomposable | LowRankPair, rank: int, split: Split = "channel") -> LowRankPair:
    """The best pair of a rank in the Frobenius norm (Eckart and Young, 1936).

    Args:
        layer: A layer for which ``is_decomposable`` holds, or a pair to decompose anew by its own split.
        rank: From 1 to min(m, n); at min(m, n) the pair equals the layer up to rounding.
        split: How the weight of a convolution is a matrix.

    Raises:
        ValueError: When the rank is out of range.
    """
    return assemble_pair(layer, Spectrum.of(matrix(layer, split)).split(rank), split)


@torch.no_grad()
def assemble_pair(
    layer: Decomposable | LowRankPair, parts: tuple[Tensor, Tensor], split: Split = "channel"
) -> LowRankPair:
    """A pair of these factors in place of a layer or pair.

    Args:
        layer: Gives geometry, bias, mode, device and dtype; a pair its split as well.
        parts: (m, r) and (r, n).
        split: How the weight of a convolution is a matrix.
    """
    if isinstance(layer, LowRankPair):
        return assemble_pair(recompose(layer), parts, layer.split)
    left, right = parts
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
    _copy_bias(layer, pair.second)
    pair.train(layer.training)
    return pair


@torch.no_grad()
def recompose(pair: LowRankPair) -> Decomposable:
    """The single layer that computes what the pair computes; inverse of ``decompose`` at full rank."""
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
    _copy_bias(pair.second, layer)
    layer.train(pair.training)
    return layer


def all_factors(model: nn.Module) -> dict[str, Factors]:
    """``factors`` of everything that is factored.

    Returns:
        By the name of each pair, and by the torch name of each factored matrix of a recurrent layer,
        for example ``encoder.weight_hh_l0``.
    """
    found: dict[str, Factors] = {}
    for name, module in model.named_modules():
        if isinstance(module, LowRankPair):
            found[name] = factors(module)
        elif isinstance(module, FactoredRecurrent):
            for part in module.ranks:
                found[f"{name}.{part}" if name else part] = module.parts(part)
    return found


def decomposable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Pairs, recurrent layers, and decomposable layers outside pairs, by name."""
    found: dict[str, nn.Module] = {}
    inside_pairs: set[nn.Module] = set()
    for name, module in model.named_modules():
        if isinstance(module, LowRankPair):
            inside_pairs |= set(module.children())
        elif module in inside_pairs or not (is_decomposable(module) or is_recurrent(module)):
            continue
        found[name] = module
    return found


def shared_names(model: nn.Module) -> set[str]:
    """Names of layers and pairs that share a parameter with another name."""
    shared = shared_layers(model)
    return shared | {owner.rpartition(".")[0] for owner in shared}


def factorize_fully(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Every whole layer of its own weight as factors of full rank, in place.

    Returns:
        The model, or what replaces it where it is one layer, and the names of the layers: Linear,
        Conv1d, Conv2d (by channels), Embedding, GRU and LSTM (each matrix).
    """
    shared = shared_names(model)
    names = []
    for name, layer in decomposable_layers(model).items():
        if name in shared or isinstance(layer, LowRankPair | FactoredRecurrent):
            continue
        if isinstance(layer, nn.GRU | nn.LSTM):
            whole = {part: weight_of(layer, part) for part in matrix_names(layer)}
            parts = {part: Spectrum.of(weight).split(min(weight.shape)) for part, weight in whole.items()}
            model = replace_module(model, name, assemble(layer, parts))
        else:
            assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Embedding)
            model = replace_module(model, name, decompose(layer, min(matrix(layer).shape)))
        names.append(name)
    return model, tuple(names)


def merge(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """Pairs and factored recurrent layers of these names as plain layers again, in place.

    Returns:
        The model, or what replaces it where it is one layer.
    """
    for name in names:
        layer = model.get_submodule(name)
        if isinstance(layer, LowRankPair):
            model = replace_module(model, name, recompose(layer))
        elif isinstance(layer, FactoredRecurrent):
            whole = {part: weight_of(layer, part) for part in matrix_names(layer)}
            model = replace_module(model, name, assemble(layer, whole))
    return model


def _copy_bias(source: Decomposable, target: Decomposable) -> None:
    if isinstance(source, nn.Embedding) or isinstance(target, nn.Embedding):
        return
    if source.bias is not None and target.bias is not None:
        target.bias.copy_(source.bias)


def _left(pair: LowRankPair) -> Tensor:
    """The second weight as (m, r)."""
    weight = pair.second.weight
    return weight.reshape(*weight.shape[:2], -1).transpose(1, 2).flatten(0, 1)


def _right(pair: LowRankPair) -> Tensor:
    """The first weight as (r, n)."""
    weight = pair.first.weight
    return weight.T if isinstance(pair.first, nn.Embedding) else weight.flatten(1)
