"""One layer with the rank that a rule asks for, where that saves weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from petra_optuna.nn.factored_recurrent import FactoredRecurrent, Recurrent, assemble, matrix_names, weight_of
from petra_optuna.nn.low_rank import LowRankPair, assemble_pair, has_spatial_split, matrix, recompose
from petra_optuna.nn.ranks import (
    RankRule,
    Spectrum,
    break_even_rank,
    choose_rank,
    kept_energy,
    round_rank,
)
from petra_optuna.nn.split_layers import Decomposable, Split

SAVES_NOTHING = "no rank that keeps what the rule asks for saves weights"


@dataclasses.dataclass(frozen=True)
class Reduced:
    """What became of a layer.

    Attributes:
        layer: The replacement; None where nothing changed.
        ranks: Before and after, of each matrix that changed: by the name of a recurrent layer's matrix,
            by the empty name for other layers. None stands for a whole matrix.
        left_out: Reasons, of each matrix that did not, by the same names.
    """

    layer: nn.Module | None
    ranks: Mapping[str, tuple[int | None, int | None]]
    left_out: Mapping[str, str]


@torch.no_grad()
def reduce_layer(layer: nn.Module, rule: RankRule, threshold: float) -> Reduced:
    """The layer with the rank that the rule asks for.

    Of the two splits of a Conv2d the one that costs less at the same error is taken. What is factored
    already gets a smaller rank, or becomes whole where that has fewer weights.

    Args:
        layer: One that ``decomposable_layers`` gives.
        rule: Which rule.
        threshold: Of the rule, in (0, 1].
    """
    if isinstance(layer, nn.GRU | nn.LSTM | FactoredRecurrent):
        return _reduce_recurrent(layer, rule, threshold)
    if isinstance(layer, LowRankPair):
        return _reduce_pair(layer, rule, threshold)
    assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Embedding)
    spectrum, rank, split = _cheaper_split(layer, rule, threshold)
    if rank is None:
        return Reduced(None, {}, {"": SAVES_NOTHING})
    return Reduced(assemble_pair(layer, spectrum.split(rank), split), {"": (None, rank)}, {})


def _reduce_pair(pair: LowRankPair, rule: RankRule, threshold: float) -> Reduced:
    spectrum = Spectrum.of(matrix(pair))
    rank = _rank(spectrum, pair.rank, rule, threshold)
    if rank is not None:
        return Reduced(assemble_pair(pair, spectrum.split(rank)), {"": (pair.rank, rank)}, {})
    if pair.rank > _limit(spectrum):
        return Reduced(recompose(pair), {"": (pair.rank, None)}, {})
    return Reduced(None, {}, {"": SAVES_NOTHING})


def _reduce_recurrent(layer: Recurrent, rule: RankRule, threshold: float) -> Reduced:
    matrices: dict[str, Tensor | tuple[Tensor, Tensor]] = {}
    ranks: dict[str, tuple[int | None, int | None]] = {}
    left_out: dict[str, str] = {}
    old = layer.ranks if isinstance(layer, FactoredRecurrent) else {}
    for name in matrix_names(layer):
        before = old.get(name)
        spectrum = Spectrum.of(weight_of(layer, name))
        rank = _rank(spectrum, before, rule, threshold)
        if rank is not None:
            matrices[name] = spectrum.split(rank)
        elif before is None or before > _limit(spectrum):
            matrices[name] = spectrum.matrix
        else:
            assert isinstance(layer, FactoredRecurrent)
            matrices[name] = layer.parts(name)
        after = rank or (None if isinstance(matrices[name], Tensor) else before)
        if after != before:
            ranks[name] = (before, after)
        else:
            left_out[name] = SAVES_NOTHING
    return Reduced(assemble(layer, matrices) if ranks else None, ranks, left_out)


def _cheaper_split(
    layer: Decomposable, rule: RankRule, threshold: float
) -> tuple[Spectrum, int | None, Split]:
    """The cheaper split and its rank; a rank of None where neither saves weights.

    The rule sets the rank of the split by channels, and so the error. That by space gets the smallest
    rank with no larger error. Cost is weights and multiply-accumulates for one output position, which
    differ where a stride lets the first half of a spatial pair run at more positions.
    """
    channel = Spectrum.of(matrix(layer))
    rank = _rank(channel, None, rule, threshold)
    if not has_spatial_split(layer):
        return channel, rank, "channel"
    assert isinstance(layer, nn.Conv2d)
    asked = choose_rank(channel.values, rule, threshold, _limit(channel))
    kept = threshold if rule == "energy" else kept_energy(channel.values, asked)
    spatial = Spectrum.of(matrix(layer, "spatial"))
    spatial_rank = _rank(spatial, None, "energy", kept)
    if spatial_rank is None:
        return channel, rank, "channel"
    rows, columns = spatial.matrix.shape
    cost = spatial_rank * (2 * rows + (1 + layer.stride[1]) * columns)
    if rank is None or cost < rank * 2 * sum(channel.matrix.shape):
        return spatial, spatial_rank, "spatial"
    return channel, rank, "channel"


def _rank(spectrum: Spectrum, before: int | None, rule: RankRule, threshold: float) -> int | None:
    """The rank that the rule asks for, rounded; None where it saves nothing against what there is."""
    limit = _limit(spectrum)
    values = spectrum.values
    rank = round_rank(min(choose_rank(values, rule, threshold, limit), len(values)), limit)
    return rank if rank < min(limit, before or limit) else None


def _limit(spectrum: Spectrum) -> float:
    return break_even_rank(*spectrum.matrix.shape)
