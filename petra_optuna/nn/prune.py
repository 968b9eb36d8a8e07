"""Structured pruning: channels leave together with everything that is coupled to them.

torch-pruning finds which channels are coupled (arXiv 2301.12900); what leaves is decided here, in
blocks that keep widths multiples of 8, so that no layer vanishes and the asked share is met closely.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
import torch_pruning as tp
from torch import Tensor, nn

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.importance import WeightScores, channel_scores
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.tracing import is_sound, reaches_output, trace

Scope = Literal["global", "local"]
ROUND_TO = 8
"""Widths that pruning leaves are multiples of this, the width of a vector register in floats."""
LARGEST_CUT = 15 / 16
"""A layer never loses more than this share, whatever a global ranking says of it."""


@dataclasses.dataclass(frozen=True)
class Pruned:
    """What happened.

    Attributes:
        widths: For each group, by the name of its first layer: channels before and after.
        left_out: For each group that could not be pruned: why.
    """

    widths: dict[str, tuple[int, int]]
    left_out: dict[str, str]


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A group of coupled channels; a unit is one channel of each of ``segments`` equal parts."""

    name: str
    group: tp.dependency.Group
    scores: Tensor
    segments: int

    @property
    def channels(self) -> int:
        return self.scores.numel() * self.segments

    def blocks(self) -> list[tuple[float, list[int]]]:
        """Units that may leave, worst first, in blocks after each of which the width is round."""
        step = ROUND_TO // math.gcd(ROUND_TO, self.segments)
        units = self.scores.numel()
        smallest = math.ceil(max(step, units * (1 - LARGEST_CUT)) / step) * step
        order = torch.argsort(self.scores, stable=True).tolist()
        kept = range(units - units % step if units % step else units - step, smallest - 1, -step)
        edges = [units, *kept]
        chunks = [order[units - high : units - low] for high, low in itertools.pairwise(edges)]
        return [(float(self.scores[chunk].mean()), chunk) for chunk in chunks]

    def indices(self, units: list[int]) -> list[int]:
        """Channels of the root layer that the units stand for."""
        size = self.scores.numel()
        return sorted(segment * size + unit for segment in range(self.segments) for unit in units)


def prune_channels(
    model: nn.Module,
    inputs: Inputs,
    scores: Callable[[nn.Module], WeightScores],
    ratio: float,
    scope: Scope,
) -> Pruned:
    """Remove the least important channels, in place.

    Neither the model's inputs nor its outputs are pruned, nor layers that share their weight.

    Args:
        model: In evaluation mode and private to the caller.
        inputs: A batch of at least one sample, to trace the model with.
        scores: Scores of every weight of the model.
        ratio: Share of the prunable channels to remove.
        scope: ``global`` ranks all channels together, ``local`` removes the share in each layer.

    Raises:
        OperationFailed: When the model cannot be traced, has nothing to prune, or does not run or
            changes the shape of its output afterwards.
    """
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    model.requires_grad_(True)  # the graph is traced by autograd
    with torch.no_grad():
        shape = forward(model, inputs).shape
    candidates, left_out = _candidates(model, inputs, scores(model))
    if not candidates and not left_out:
        raise OperationFailed("the model has no Linear or convolution whose channels can be removed")
    units = _select(candidates, ratio, scope)
    for candidate in candidates:
        if units[candidate.name]:
            candidate.group.prune(candidate.indices(units[candidate.name]))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    _check_runs(model, inputs, shape)
    widths = {
        candidate.name: (
            candidate.channels,
            candidate.channels - len(units[candidate.name]) * candidate.segments,
        )
        for candidate in candidates
    }
    return Pruned(widths, left_out)


def _select(candidates: list[_Candidate], ratio: float, scope: Scope) -> dict[str, list[int]]:
    """Units to remove for each candidate: lowest blocks first until the share is met most closely."""
    chosen: dict[str, list[int]] = {candidate.name: [] for candidate in candidates}
    for ranked in [candidates] if scope == "global" else [[candidate] for candidate in candidates]:
        blocks = [(score, candidate, units) for candidate in ranked for score, units in candidate.blocks()]
        wanted = ratio * sum(candidate.channels for candidate in ranked)
        for _, candidate, units in sorted(blocks, key=lambda block: block[0]):
            size = len(units) * candidate.segments
            if wanted < size / 2:
                break
            chosen[candidate.name] += units
            wanted -= size
    return chosen


def _candidates(
    model: nn.Module, inputs: Inputs, scores: WeightScores
) -> tuple[list[_Candidate], dict[str, str]]:
    graph, groups = trace(model, inputs)
    names = {module: name for name, module in model.named_modules()}
    shared = _sharing_modules(model)
    candidates: list[_Candidate] = []
    left_out: dict[str, str] = {}
    for group in groups:
        layers = [dependency.layer for dependency, _ in group]
        name = names[layers[0]]
        if any(isinstance(layer, nn.MultiheadAttention) for layer in layers):
            left_out[name] = "it is coupled to the heads of an attention layer"
        elif reaches_output(graph, group):
            left_out[name] = "its channels are the output of the model"
        elif any(layer in shared for layer in layers if isinstance(layer, nn.Module)):
            left_out[name] = "it is coupled to a layer that shares its weight"
        elif not is_sound(graph, group):
            left_out[name] = "its channels cannot be traced through a concatenation or reshaping"
        else:
            candidate = _candidate(graph, group, name, scores)
            if candidate is None:
                left_out[name] = "its channels are split in ways that do not divide each other"
            else:
                candidates.append(candidate)
    return candidates, left_out


def _candidate(
    graph: tp.DependencyGraph, group: tp.dependency.Group, name: str, scores: WeightScores
) -> _Candidate | None:
    values = channel_scores(group, scores)
    segments = _segments(graph, group)
    if values is None or segments is None or values.numel() % segments:
        return None
    return _Candidate(name, group, values.view(segments, -1).mean(0), segments)


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


def _sharing_modules(model: nn.Module) -> set[nn.Module]:
    owners: dict[nn.Parameter, set[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter, set()).add(module)
    return {module for modules in owners.values() if len(modules) > 1 for module in modules}


def _check_runs(model: nn.Module, inputs: Inputs, shape: torch.Size) -> None:
    try:
        with torch.no_grad():
            found = forward(model, inputs).shape
    except (IndexError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise OperationFailed(f"the model does not run with fewer channels: {reason}") from error
    if found != shape:
        raise OperationFailed(f"pruning changed the output's shape from {tuple(shape)} to {tuple(found)}")
