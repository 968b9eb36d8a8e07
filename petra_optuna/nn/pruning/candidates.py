"""What may be pruned in a model: groups of coupled channels, and groups that must shrink in step.

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

from petra_optuna.nn.inputs import Inputs
from petra_optuna.nn.pruning.eligibility import LayerIndex
from petra_optuna.nn.pruning.importance import RandomScores, WeightScores, channel_scores
from petra_optuna.nn.pruning.proxies import NOT_PRUNED, Numbered
from petra_optuna.nn.pruning.recurrent import Proxy, RecurrentStandIn
from petra_optuna.nn.pruning.tracing import trace

ROUND_TO = 8
"""Widths that pruning leaves are multiples of this, the width of a vector register in floats."""
LARGEST_CUT = 15 / 16
"""A layer never loses more than this share, whatever a global ranking says of it."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Groups that lose the same number of units; a unit is one channel of each of equal segments.

    Attributes:
        name: Of the first layer, or of the first recurrent layer among them.
        groups: At least one.
        scores: Of the units of each group, (groups, units).
        segments: Equal parts of each group's channels.
        channels: Width of the layer of that name; hidden units of all its layers and directions.
        weight: How many of these leave when each group loses one unit.
    """

    name: str
    groups: tuple[tp.dependency.Group, ...]
    scores: Tensor
    segments: int
    channels: int
    weight: int

    def blocks(self) -> list[tuple[float, int]]:
        """Units that may leave, worst first, in blocks after each of which the width is round.

        Returns:
            The mean score of each block and its number of units.
        """
        step = ROUND_TO // math.gcd(ROUND_TO, self.segments)
        units = self.scores.shape[1]
        smallest = math.ceil(max(step, units * (1 - LARGEST_CUT)) / step) * step
        kept = range(units - units % step if units % step else units - step, smallest - 1, -step)
        ranked = self.scores.sort(dim=1).values
        return [
            (float(ranked[:, units - high : units - low].mean()), high - low)
            for high, low in itertools.pairwise([units, *kept])
        ]

    def least_important(self, count: int) -> list[tuple[tp.dependency.Group, list[int]]]:
        """The channels of each group's root that its ``count`` least important units stand for."""
        size = self.scores.shape[1]
        chosen = [torch.argsort(scores, stable=True)[:count].tolist() for scores in self.scores]
        return [
            (group, sorted(part * size + unit for part in range(self.segments) for unit in units))
            for group, units in zip(self.groups, chosen, strict=True)
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    """A group and the sets of hidden units in it, with its scores or why it cannot be pruned."""

    name: str
    group: tp.dependency.Group
    covers: dict[nn.Module, int]
    refusal: str | None
    scores: Tensor = torch.empty(0)
    segments: int = 1

    @property
    def units(self) -> int:
        return self.scores.numel()


def find_candidates(
    model: nn.Module, inputs: Inputs, scores: WeightScores
) -> tuple[tp.DependencyGraph, list[Candidate], dict[str, str]]:
    """What may be pruned, what may not and why, in the graph of the anchored model.

    Args:
        model: In evaluation mode; its weights require gradients.
        inputs: A batch.
        scores: Of every weight.

    Raises:
        OperationFailed: When the model cannot be traced.
    """
    graph, groups = trace(model, inputs)
    proxies: list[Proxy] = list(graph.model.proxies.values())
    layers = LayerIndex(model, graph, inputs)
    extended = _with_stand_ins(scores, proxies)
    named = [(name, group) for group in groups if (name := layers.name_of(group)) is not None]
    refusals = layers.refusals([group for _, group in named])
    parts = [
        _part(graph, name, group, refusal, extended)
        for (name, group), refusal in zip(named, refusals, strict=True)
    ]
    recurrent = {
        layers.name_of_layer(each.layer): each for each in proxies if isinstance(each, RecurrentStandIn)
    }
    candidates: list[Candidate] = []
    left_out = {
        name: each.refusal or "nothing that reaches the output reads it" for name, each in recurrent.items()
    }
    for bundle in _bundles(parts, list(recurrent.values())):
        tied = {name: each for name, each in recurrent.items() if any(_counts(bundle, each))}
        found = _candidate(bundle, tied)
        left_out = {name: reason for name, reason in left_out.items() if name not in tied}
        if isinstance(found, Candidate):
            candidates.append(found)
        else:
            left_out |= dict.fromkeys([*(part.name for part in bundle), *tied], found)
    left_out |= {name: each.refusal for name, each in recurrent.items() if each.refusal is not None}
    return graph, candidates, left_out | _not_pruned(model)


def _part(
    graph: tp.DependencyGraph,
    name: str,
    group: tp.dependency.Group,
    refusal: str | None,
    scores: WeightScores,
) -> _Part:
    covers: dict[nn.Module, int] = {
        item.dep.layer: len(item.idxs) for item in group if isinstance(item.dep.layer, Numbered)
    }
    if refusal is not None:
        return _Part(name, group, covers, refusal)
    values, segments = channel_scores(group, scores), _segments(graph, group)
    if segments is None or len(group[0].idxs) % segments:
        return _Part(name, group, covers, "its channels are split in ways that do not divide each other")
    if values is None:
        return _Part(name, group, covers, "the criterion has nothing to score in it")
    return _Part(name, group, covers, None, values.view(segments, -1).mean(0), segments)


def _bundles(parts: list[_Part], recurrent: list[RecurrentStandIn]) -> list[list[_Part]]:
    """Parts that share a recurrent layer, directly or through others, together."""
    bundles = [[part] for part in parts]
    for proxy in recurrent:
        tied = [bundle for bundle in bundles if any(_counts(bundle, proxy))]
        if len(tied) > 1:
            rest = [bundle for bundle in bundles if bundle not in tied]
            bundles = [*rest, [part for bundle in tied for part in bundle]]
    return bundles


def _counts(bundle: list[_Part], proxy: RecurrentStandIn) -> list[int]:
    """For each set of hidden units of a layer, the number of parts that hold units of it."""
    return [sum(units in part.covers for part in bundle) for units in proxy.sets]


def _candidate(bundle: list[_Part], tied: dict[str, RecurrentStandIn]) -> Candidate | str:
    """The parts as one candidate, or why they are none."""
    refusal = next((part.refusal for part in bundle if part.refusal is not None), None)
    if refusal is not None:
        return refusal
    first, groups = bundle[0], tuple(part.group for part in bundle)
    channels = first.units * first.segments
    if not tied:
        return Candidate(first.name, groups, first.scores[None], first.segments, channels, first.segments)
    hidden = {units for each in tied.values() for units in each.sets}
    alike = all((part.units, part.segments) == (first.units, first.segments) for part in bundle)
    whole = all(part.covers[units] == channels for part in bundle for units in part.covers.keys() & hidden)
    counts = {name: _counts(bundle, each) for name, each in tied.items()}
    if not alike or not whole or any(len(set(count) - {0}) > 1 for count in counts.values()):
        return "its layers and directions cannot lose the same number of hidden units"
    name, leading = next(iter(tied.items()))
    weight = first.segments * max(counts[name]) * len(leading.sets)
    scores = torch.stack([part.scores for part in bundle])
    return Candidate(name, groups, scores, first.segments, leading.width, weight)


def _segments(graph: tp.DependencyGraph, group: tp.dependency.Group) -> int | None:
    """Equal parts that must lose the same positions: groups of convolutions and of group norms."""
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
    most = max(counts)
    return most if all(most % count == 0 for count in counts) else None


def _with_stand_ins(scores: WeightScores, proxies: list[Proxy]) -> WeightScores:
    """The scores, and those of what the stand-ins' channels own; random draws remain draws."""
    extended = dict(scores)
    for proxy in proxies:
        extended |= proxy.scores(scores)
    return RandomScores(extended) if isinstance(scores, RandomScores) else extended


def _not_pruned(model: nn.Module) -> dict[str, str]:
    return {
        name: reason
        for name, module in model.named_modules()
        for kind, reason in NOT_PRUNED.items()
        if isinstance(module, kind)
    }
