"""Layers with the ranks that a rule asks for, one by one or together, where that saves weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from petra_optuna.nn.low_rank.allocation import allocate
from petra_optuna.nn.low_rank.factored_recurrent import (
    FactoredRecurrent,
    Recurrent,
    assemble,
    matrix_names,
    weight_of,
)
from petra_optuna.nn.low_rank.pairs import LowRankPair, assemble_pair, has_spatial_split, matrix, recompose
from petra_optuna.nn.low_rank.ranks import (
    RankRule,
    Spectrum,
    break_even_rank,
    choose_rank,
    kept_energy,
    round_rank,
)
from petra_optuna.nn.low_rank.split_layers import Decomposable, Split

SAVES_NOTHING = "no rank that keeps what the rule asks for saves weights"


@dataclasses.dataclass(frozen=True)
class ReductionResult:
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
def reduce_layer(layer: nn.Module, rule: RankRule, threshold: float) -> ReductionResult:
    """The layer with the rank that the rule asks of it alone.

    Of the two splits of a Conv2d the one that costs less at the same error is taken. What is factored
    already gets a smaller rank, or becomes whole where that has fewer weights.

    Args:
        layer: One that ``decomposable_layers`` gives.
        rule: Which rule.
        threshold: Of the rule, in (0, 1].
    """
    spectra = _spectra(layer)
    return _reduced(
        layer,
        spectra,
        {name: choose_rank(found.values, rule, threshold, _limit(found)) for name, found in spectra.items()},
    )


@torch.no_grad()
def reduce_together(
    layers: Mapping[str, nn.Module], rule: RankRule, threshold: float
) -> dict[str, ReductionResult]:
    """Layers with the ranks that the rule asks of all of them together: see ``allocate``.

    Args:
        layers: By name; each one that ``decomposable_layers`` gives.
        rule: Which rule.
        threshold: Of the rule, in (0, 1].
    """
    spectra = {name: _spectra(layer) for name, layer in layers.items()}
    matrices = [(name, part) for name, parts in spectra.items() for part in parts]
    found = [spectra[name][part] for name, part in matrices]
    weights = [_weights(spectra[name][part], _before(layers[name], part)) for name, part in matrices]
    asked: dict[str, dict[str, int]] = {name: {} for name in layers}
    for (name, part), rank in zip(matrices, allocate(found, weights, rule, threshold), strict=True):
        asked[name][part] = rank
    return {name: _reduced(layer, spectra[name], asked[name]) for name, layer in layers.items()}


def kept_shares(layer: Decomposable, share: float) -> dict[RankRule, float]:
    """What each rule asks of a layer for the rank that ``share`` asks for.

    Args:
        layer: A whole layer.
        share: Of the largest rank that saves weights.
    """
    values = Spectrum.of(matrix(layer)).values
    rank = choose_rank(values, "share", share, break_even_rank(*matrix(layer).shape))
    total = float(values.sum())
    singular = float(values[:rank].sum()) / total if total else 1.0
    return {"energy": kept_energy(values, rank), "singular_values": singular, "share": share}


def _spectra(layer: nn.Module) -> dict[str, Spectrum]:
    """Of its matrices, by the names that ``ReductionResult`` has; of a convolution by channels."""
    if isinstance(layer, nn.GRU | nn.LSTM | FactoredRecurrent):
        return {name: Spectrum.of(weight_of(layer, name)) for name in matrix_names(layer)}
    assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Embedding | LowRankPair)
    return {"": Spectrum.of(matrix(layer))}


def _reduced(layer: nn.Module, spectra: Mapping[str, Spectrum], asked: Mapping[str, int]) -> ReductionResult:
    if isinstance(layer, nn.GRU | nn.LSTM | FactoredRecurrent):
        return _reduce_recurrent(layer, spectra, asked)
    if isinstance(layer, LowRankPair):
        return _reduce_pair(layer, spectra[""], asked[""])
    assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Embedding)
    spectrum, rank, split = _cheaper_split(layer, spectra[""], asked[""])
    if rank is None:
        return ReductionResult(None, {}, {"": SAVES_NOTHING})
    return ReductionResult(assemble_pair(layer, spectrum.split(rank), split), {"": (None, rank)}, {})


def _reduce_pair(pair: LowRankPair, spectrum: Spectrum, asked: int) -> ReductionResult:
    rank = _rank(spectrum, pair.rank, asked)
    if rank is not None:
        return ReductionResult(assemble_pair(pair, spectrum.split(rank)), {"": (pair.rank, rank)}, {})
    if pair.rank > _limit(spectrum):
        return ReductionResult(recompose(pair), {"": (pair.rank, None)}, {})
    return ReductionResult(None, {}, {"": SAVES_NOTHING})


def _reduce_recurrent(
    layer: Recurrent, spectra: Mapping[str, Spectrum], asked: Mapping[str, int]
) -> ReductionResult:
    matrices: dict[str, Tensor | tuple[Tensor, Tensor]] = {}
    ranks: dict[str, tuple[int | None, int | None]] = {}
    left_out: dict[str, str] = {}
    for name, spectrum in spectra.items():
        before = _before(layer, name)
        rank = _rank(spectrum, before, asked[name])
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
    return ReductionResult(assemble(layer, matrices) if ranks else None, ranks, left_out)


def _cheaper_split(layer: Decomposable, channel: Spectrum, asked: int) -> tuple[Spectrum, int | None, Split]:
    """The cheaper split and its rank; a rank of None where neither saves weights.

    The rank asked for is that of the split by channels, and sets the error. That by space gets the smallest
    rank with no larger error, and is not looked at where the full rank is asked for. Cost is weights and
    multiply-accumulates for one output position, which differ where a stride lets the first half of a
    spatial pair run at more positions.
    """
    rank = _rank(channel, None, asked)
    if not has_spatial_split(layer) or asked >= len(channel.values):
        return channel, rank, "channel"
    assert isinstance(layer, nn.Conv2d)
    spatial = Spectrum.of(matrix(layer, "spatial"))
    kept = kept_energy(channel.values, asked)
    spatial_rank = _rank(spatial, None, choose_rank(spatial.values, "energy", kept, _limit(spatial)))
    if spatial_rank is None:
        return channel, rank, "channel"
    rows, columns = spatial.matrix.shape
    cost = spatial_rank * (2 * rows + (1 + layer.stride[1]) * columns)
    if rank is None or cost < rank * 2 * sum(channel.matrix.shape):
        return spatial, spatial_rank, "spatial"
    return channel, rank, "channel"


def _rank(spectrum: Spectrum, before: int | None, asked: int) -> int | None:
    """The rank asked for, rounded; None where it saves nothing against what there is."""
    limit = _limit(spectrum)
    rank = round_rank(min(asked, len(spectrum.values)), limit)
    return rank if rank < min(limit, before or limit) else None


def _before(layer: nn.Module, name: str) -> int | None:
    """Rank of a matrix now; None for a whole one."""
    if isinstance(layer, LowRankPair):
        return layer.rank
    return layer.ranks.get(name) if isinstance(layer, FactoredRecurrent) else None


def _weights(spectrum: Spectrum, rank: int | None) -> int:
    return spectrum.matrix.numel() if rank is None else rank * sum(spectrum.matrix.shape)


def _limit(spectrum: Spectrum) -> float:
    return break_even_rank(*spectrum.matrix.shape)
