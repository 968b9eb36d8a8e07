"""Reduction of layers to the ranks that a rule asks for, one by one or together, where that saves weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from petra_optuna.nn.low_rank.allocation import allocate
from petra_optuna.nn.low_rank.factored_recurrent import (
    FactoredRecurrent,
    Recurrent,
    assemble_recurrent,
    matrix_names,
    weight_of,
)
from petra_optuna.nn.low_rank.pairs import (
    LowRankPair,
    assemble_pair,
    recompose,
    weight_matrix,
)
from petra_optuna.nn.low_rank.ranks import (
    SVD,
    RankRule,
    break_even_rank,
    choose_rank,
    kept_energy,
    round_rank,
)
from petra_optuna.nn.low_rank.split_layers import Convolution, Decomposable, Split, split_axis
from petra_optuna.nn.time_limit import check_time

SAVES_NOTHING = "no rank that keeps what the rule asks for saves weights"


@dataclasses.dataclass(frozen=True)
class ReductionResult:
    """A layer's replacement by low-rank factors, and its ranks.

    Attributes:
        layer: Replacement of the layer; None where nothing changed.
        ranks: Rank before and after of each matrix that changed, by the name of a recurrent layer's matrix,
            or by the empty name for other layers. None stands for a whole matrix.
        left_out: Reason for each matrix that did not change, by the same names.
    """

    layer: nn.Module | None
    ranks: Mapping[str, tuple[int | None, int | None]]
    left_out: Mapping[str, str]


@torch.no_grad()
def reduce_layer(layer: nn.Module, rule: RankRule, threshold: float) -> ReductionResult:
    """Reduce a layer to the rank that the rule asks of it alone.

    A convolution of two or three dimensions gets the split that costs less at the same error. What is
    factored already gets a smaller rank, or becomes whole where that has fewer weights.

    Args:
        layer: Layer that ``decomposable_layers`` gives.
        rule: Name of the rule.
        threshold: Threshold of the rule, in (0, 1].
    """
    decompositions = _decompose_matrices(layer)
    return _reduce(
        layer,
        decompositions,
        {
            name: choose_rank(svd.singular_values, rule, threshold, _break_even(svd))
            for name, svd in decompositions.items()
        },
    )


@torch.no_grad()
def reduce_together(
    layers: Mapping[str, nn.Module], rule: RankRule, threshold: float
) -> dict[str, ReductionResult]:
    """Reduce layers to the ranks that the rule asks of all of them together: see ``allocate``.

    Args:
        layers: Layers that ``decomposable_layers`` gives, by name.
        rule: Name of the rule.
        threshold: Threshold of the rule, in (0, 1].
    """
    of_layer = {name: _decompose_matrices(layer) for name, layer in layers.items()}
    matrices = [(name, matrix) for name, decompositions in of_layer.items() for matrix in decompositions]
    decompositions = [of_layer[name][matrix] for name, matrix in matrices]
    weights = [
        _weight_count(of_layer[name][matrix], _current_rank(layers[name], matrix))
        for name, matrix in matrices
    ]
    requested: dict[str, dict[str, int]] = {name: {} for name in layers}
    ranks = allocate(decompositions, weights, rule, threshold)
    for (name, matrix), rank in zip(matrices, ranks, strict=True):
        requested[name][matrix] = rank
    return {name: _reduce(layer, of_layer[name], requested[name]) for name, layer in layers.items()}


def kept_shares(layer: Decomposable, share: float) -> dict[RankRule, float]:
    """Threshold of each rule at which it asks for the rank that ``share`` asks for.

    Args:
        layer: Whole layer.
        share: Share of the largest rank that saves weights.
    """
    values = SVD.of(weight_matrix(layer)).singular_values
    rank = choose_rank(values, "share", share, break_even_rank(*weight_matrix(layer).shape))
    total = float(values.sum())
    singular = float(values[:rank].sum()) / total if total else 1.0
    return {"energy": kept_energy(values, rank), "singular_values": singular, "share": share}


def _decompose_matrices(layer: nn.Module) -> dict[str, SVD]:
    """Decomposition of each matrix of a layer, by the names of ``ReductionResult``."""
    check_time()
    if isinstance(layer, nn.GRU | nn.LSTM | FactoredRecurrent):
        return {name: SVD.of(weight_of(layer, name)) for name in matrix_names(layer)}
    assert isinstance(layer, Decomposable | LowRankPair)
    return {"": SVD.of(weight_matrix(layer))}


def _reduce(
    layer: nn.Module, decompositions: Mapping[str, SVD], requested: Mapping[str, int]
) -> ReductionResult:
    if isinstance(layer, nn.GRU | nn.LSTM | FactoredRecurrent):
        return _reduce_recurrent(layer, decompositions, requested)
    if isinstance(layer, LowRankPair):
        return _reduce_pair(layer, decompositions[""], requested[""])
    assert isinstance(layer, Decomposable)
    svd, rank, split = _cheaper_split(layer, decompositions[""], requested[""])
    if rank is None:
        return ReductionResult(None, {}, {"": SAVES_NOTHING})
    return ReductionResult(assemble_pair(layer, svd.truncate(rank), split), {"": (None, rank)}, {})


def _reduce_pair(pair: LowRankPair, svd: SVD, requested: int) -> ReductionResult:
    rank = _saving_rank(svd, pair.rank, requested)
    if rank is not None:
        return ReductionResult(assemble_pair(pair, svd.truncate(rank)), {"": (pair.rank, rank)}, {})
    if pair.rank > _break_even(svd):
        return ReductionResult(recompose(pair), {"": (pair.rank, None)}, {})
    return ReductionResult(None, {}, {"": SAVES_NOTHING})


def _reduce_recurrent(
    layer: Recurrent, decompositions: Mapping[str, SVD], requested: Mapping[str, int]
) -> ReductionResult:
    matrices: dict[str, Tensor | tuple[Tensor, Tensor]] = {}
    ranks: dict[str, tuple[int | None, int | None]] = {}
    left_out: dict[str, str] = {}
    for name, svd in decompositions.items():
        before = _current_rank(layer, name)
        rank = _saving_rank(svd, before, requested[name])
        if rank is not None:
            matrices[name] = svd.truncate(rank)
        elif before is None or before > _break_even(svd):
            matrices[name] = svd.matrix
        else:
            assert isinstance(layer, FactoredRecurrent)
            matrices[name] = layer.factors(name)
        after = rank or (None if isinstance(matrices[name], Tensor) else before)
        if after != before:
            ranks[name] = (before, after)
        else:
            left_out[name] = SAVES_NOTHING
    return ReductionResult(assemble_recurrent(layer, matrices) if ranks else None, ranks, left_out)


def _cheaper_split(layer: Decomposable, channel: SVD, requested: int) -> tuple[SVD, int | None, Split]:
    """The cheaper split and its rank; a rank of None where neither saves weights.

    The requested rank is that of the split by channels, and sets the error. The split by space gets the
    smallest rank with no larger error, and is not looked at where the full rank is requested. Cost is weights
    and multiply-accumulates for one output position, which differ where a stride lets the first half of a
    spatial pair run at more positions.
    """
    rank = _saving_rank(channel, None, requested)
    axis = split_axis(layer)
    if axis is None or requested >= len(channel.singular_values):
        return channel, rank, "channel"
    assert isinstance(layer, Convolution)
    spatial = SVD.of(weight_matrix(layer, "spatial"))
    kept = kept_energy(channel.singular_values, requested)
    equal_rank = choose_rank(spatial.singular_values, "energy", kept, _break_even(spatial))
    spatial_rank = _saving_rank(spatial, None, equal_rank)
    if spatial_rank is None:
        return channel, rank, "channel"
    rows, columns = spatial.matrix.shape
    cost = spatial_rank * (2 * rows + (1 + layer.stride[axis]) * columns)
    if rank is None or cost < rank * 2 * sum(channel.matrix.shape):
        return spatial, spatial_rank, "spatial"
    return channel, rank, "channel"


def _saving_rank(svd: SVD, before: int | None, requested: int) -> int | None:
    """The requested rank, rounded; None where it saves no weights against what there is."""
    limit = _break_even(svd)
    rank = round_rank(min(requested, len(svd.singular_values)), limit)
    return rank if rank < min(limit, before or limit) else None


def _current_rank(layer: nn.Module, name: str) -> int | None:
    """Rank of a matrix before the reduction; None for a whole one."""
    if isinstance(layer, LowRankPair):
        return layer.rank
    return layer.ranks.get(name) if isinstance(layer, FactoredRecurrent) else None


def _weight_count(svd: SVD, rank: int | None) -> int:
    return svd.matrix.numel() if rank is None else rank * sum(svd.matrix.shape)


def _break_even(svd: SVD) -> float:
    return break_even_rank(*svd.matrix.shape)
