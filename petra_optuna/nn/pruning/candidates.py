"""What may be pruned in a model: groups of coupled channels, groups that must shrink in step, and heads.

torch-pruning finds which channels are coupled (arXiv 2301.12900). The layers and directions of one
recurrent layer all have the same number of hidden units, so their groups shrink in step: the least
important units of each leave together, wherever they are.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import torch
import torch_pruning as tp
from torch import Tensor, nn

from petra_optuna.nn.attention import left_closed
from petra_optuna.nn.inputs import Inputs
from petra_optuna.nn.pruning.eligibility import LayerIndex
from petra_optuna.nn.pruning.heads import HeadCandidate, Heads, find_heads
from petra_optuna.nn.pruning.importance import RandomScores, WeightScores, channel_scores
from petra_optuna.nn.pruning.proxies import NOT_PRUNED, ChannelTracker
from petra_optuna.nn.pruning.recurrent import Proxy, RecurrentProxy
from petra_optuna.nn.pruning.tracing import trace
from petra_optuna.nn.surgery import VECTOR_WIDTH

LARGEST_CUT = 15 / 16
"""Largest share of its channels that a layer may lose, whatever a global ranking says of it."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Groups of coupled channels that lose the same number of units.

    A unit is one channel of each of the group's equal segments.

    Attributes:
        name: Name of the first layer, or of the first recurrent layer among them.
        groups: Groups of coupled channels, at least one.
        scores: Scores of the units of each group, (groups, units).
        segments: Number of equal parts of each group's channels.
        channels: Width of the layer of that name; for a recurrent layer its hidden units in all layers and
            directions.
        channels_per_unit: How many of ``channels`` leave when each group loses one unit.
    """

    name: str
    groups: tuple[tp.dependency.Group, ...]
    scores: Tensor
    segments: int
    channels: int
    channels_per_unit: int

    def removable_blocks(self) -> list[tuple[float, int]]:
        """Units that may leave, least important first, in blocks that leave a multiple of ``VECTOR_WIDTH``.

        Returns:
            The mean score of each block and its number of units.
        """
        step = VECTOR_WIDTH // math.gcd(VECTOR_WIDTH, self.segments)
        units = self.scores.shape[1]
        smallest = math.ceil(max(step, units * (1 - LARGEST_CUT)) / step) * step
        kept = range(units - units % step if units % step else units - step, smallest - 1, -step)
        ranked = self.scores.sort(dim=1).values
        return [
            (float(ranked[:, units - high : units - low].mean()), high - low)
            for high, low in itertools.pairwise([units, *kept])
        ]

    def least_important(self, count: int) -> list[tuple[tp.dependency.Group, list[int]]]:
        """The ``count`` least important units of each group, as channels of its root."""
        size = self.scores.shape[1]
        chosen = [torch.argsort(scores, stable=True)[:count].tolist() for scores in self.scores]
        return [
            (group, sorted(segment * size + unit for segment in range(self.segments) for unit in units))
            for group, units in zip(self.groups, chosen, strict=True)
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class _ScoredGroup:
    """A group of coupled channels with its scores, or the reason why it cannot be pruned.

    Attributes:
        name: Name of its first layer.
        group: Group that torch-pruning found.
        covers: Number of hidden units in the group, by the ``ChannelTracker`` that follows them.
        reason_against: Reason why it cannot be pruned, or None.
        scores: Scores of its units, (units,).
        segments: Number of equal parts of its channels.
    """

    name: str
    group: tp.dependency.Group
    covers: dict[nn.Module, int]
    reason_against: str | None
    scores: Tensor = torch.empty(0)
    segments: int = 1

    @property
    def units(self) -> int:
        return self.scores.numel()


def find_candidates(
    model: nn.Module, inputs: Inputs, scores: WeightScores
) -> tuple[tp.DependencyGraph, list[Candidate | HeadCandidate], dict[str, str]]:
    """What may be pruned in a model, and what may not.

    Args:
        model: Model in evaluation mode whose attention is opened; its weights require gradients.
        inputs: One batch.
        scores: Scores of every weight.

    Returns:
        The graph of the traceable model, the candidates, and the reason for each layer that is left out,
        by its name.

    Raises:
        OperationFailed: When the model cannot be traced.
    """
    graph, groups = trace(model, inputs)
    proxies: list[Proxy] = list(graph.model.proxies.values())
    layers = LayerIndex(model, graph, inputs)
    extended = _with_proxy_scores(scores, proxies)
    all_heads, left_out = find_heads(model)
    left_out |= left_closed(model)
    named = [
        (name, group)
        for group in groups
        if (name := layers.name_of(group)) is not None and not _holds_heads(graph, group, all_heads)
    ]
    reasons = layers.reasons_against([group for _, group in named])
    scored_groups = [
        _score_group(graph, name, group, reason, extended)
        for (name, group), reason in zip(named, reasons, strict=True)
    ]
    recurrent = {
        layers.name_of_layer(proxy.layer): proxy for proxy in proxies if isinstance(proxy, RecurrentProxy)
    }
    candidates: list[Candidate | HeadCandidate] = []
    left_out |= {
        name: proxy.reason_against or "nothing that reaches the output reads it"
        for name, proxy in recurrent.items()
    }
    for bundle in _bundle(scored_groups, list(recurrent.values())):
        tied = {name: proxy for name, proxy in recurrent.items() if any(_counts(bundle, proxy))}
        candidate = _as_candidate(bundle, tied)
        left_out = {name: reason for name, reason in left_out.items() if name not in tied}
        if isinstance(candidate, Candidate):
            candidates.append(candidate)
        else:
            left_out |= dict.fromkeys([*(scored.name for scored in bundle), *tied], candidate)
    left_out |= {
        name: proxy.reason_against for name, proxy in recurrent.items() if proxy.reason_against is not None
    }
    for heads in all_heads:
        with_scores = HeadCandidate.of(heads, scores)
        if isinstance(with_scores, HeadCandidate):
            candidates.append(with_scores)
        else:
            left_out[heads.name] = with_scores
    return graph, candidates, left_out | _classes_not_pruned(model)


def _holds_heads(graph: tp.DependencyGraph, group: tp.dependency.Group, all_heads: list[Heads]) -> bool:
    """Whether channels of the group are features of heads, which leave as a whole."""
    makers = {layer for heads in all_heads for layer in heads.layers()[0]}
    readers = {heads.layers()[1] for heads in all_heads}
    return any(
        dependency.layer in (makers if graph.is_out_channel_pruning_fn(dependency.handler) else readers)
        for dependency, _ in group
        if isinstance(dependency.layer, nn.Module)
    )


def _score_group(
    graph: tp.DependencyGraph,
    name: str,
    group: tp.dependency.Group,
    reason_against: str | None,
    scores: WeightScores,
) -> _ScoredGroup:
    covers: dict[nn.Module, int] = {
        item.dep.layer: len(item.idxs) for item in group if isinstance(item.dep.layer, ChannelTracker)
    }
    if reason_against is not None:
        return _ScoredGroup(name, group, covers, reason_against)
    values, segments = channel_scores(group, scores), _segments(graph, group)
    if segments is None or len(group[0].idxs) % segments:
        reason_against = "its channels are split in ways that do not divide each other"
        return _ScoredGroup(name, group, covers, reason_against)
    if values is None:
        return _ScoredGroup(name, group, covers, "the criterion has nothing to score in it")
    return _ScoredGroup(name, group, covers, None, values.view(segments, -1).mean(0), segments)


def _bundle(groups: list[_ScoredGroup], recurrent: list[RecurrentProxy]) -> list[list[_ScoredGroup]]:
    """Put groups together that share a recurrent layer, directly or through others."""
    bundles = [[group] for group in groups]
    for proxy in recurrent:
        tied = [bundle for bundle in bundles if any(_counts(bundle, proxy))]
        if len(tied) > 1:
            rest = [bundle for bundle in bundles if bundle not in tied]
            bundles = [*rest, [group for bundle in tied for group in bundle]]
    return bundles


def _counts(bundle: list[_ScoredGroup], proxy: RecurrentProxy) -> list[int]:
    """For each set of hidden units of a layer, the number of groups that hold units of it."""
    return [sum(units in scored.covers for scored in bundle) for units in proxy.unit_sets]


def _as_candidate(bundle: list[_ScoredGroup], tied: dict[str, RecurrentProxy]) -> Candidate | str:
    """The groups as one candidate, or the reason why they are none."""
    reasons = [scored.reason_against for scored in bundle if scored.reason_against is not None]
    if reasons:
        return reasons[0]
    first, groups = bundle[0], tuple(scored.group for scored in bundle)
    channels = first.units * first.segments
    if not tied:
        return Candidate(first.name, groups, first.scores[None], first.segments, channels, first.segments)
    hidden = {units for proxy in tied.values() for units in proxy.unit_sets}
    alike = all((scored.units, scored.segments) == (first.units, first.segments) for scored in bundle)
    whole = all(
        scored.covers[units] == channels for scored in bundle for units in scored.covers.keys() & hidden
    )
    counts = {name: _counts(bundle, proxy) for name, proxy in tied.items()}
    if not alike or not whole or any(len(set(count) - {0}) > 1 for count in counts.values()):
        return "its layers and directions cannot lose the same number of hidden units"
    name, leading = next(iter(tied.items()))
    channels_per_unit = first.segments * max(counts[name]) * len(leading.unit_sets)
    scores = torch.stack([scored.scores for scored in bundle])
    return Candidate(name, groups, scores, first.segments, leading.width, channels_per_unit)


def _segments(graph: tp.DependencyGraph, group: tp.dependency.Group) -> int | None:
    """Number of equal parts that must lose the same positions: groups of convolutions and group norms."""
    counts = {1}
    for dependency, _ in group:
        layer = dependency.layer
        depthwise = isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.groups == layer.out_channels
        if not isinstance(layer, nn.Module) or depthwise:
            continue
        pruner = graph.get_pruner_of_module(layer)
        if graph.is_out_channel_pruning_fn(dependency.handler):
            counts.add(pruner.get_out_channel_groups(layer))
        else:
            counts.add(pruner.get_in_channel_groups(layer))
    largest = max(counts)
    return largest if all(largest % count == 0 for count in counts) else None


def _with_proxy_scores(scores: WeightScores, proxies: list[Proxy]) -> WeightScores:
    """The scores, and those of what the proxies' channels own; random scores remain random."""
    extended = dict(scores)
    for proxy in proxies:
        extended |= proxy.scores(scores)
    return RandomScores(extended) if isinstance(scores, RandomScores) else extended


def _classes_not_pruned(model: nn.Module) -> dict[str, str]:
    return {
        name: reason
        for name, module in model.named_modules()
        for layer_class, reason in NOT_PRUNED.items()
        if isinstance(module, layer_class)
    }
