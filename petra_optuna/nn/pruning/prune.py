"""Structured pruning: channels leave together with everything that is coupled to them.

torch-pruning finds which channels are coupled (arXiv 2301.12900). How many leave is decided here, in
blocks that keep widths multiples of 8, so that no layer vanishes and the requested share is met closely.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, Literal

from torch import nn

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.attention import close_unchanged, open_attention
from petra_optuna.nn.copying import private_copy
from petra_optuna.nn.culprits import find_culprits
from petra_optuna.nn.inputs import Inputs
from petra_optuna.nn.pruning.candidates import Candidate, find_candidates
from petra_optuna.nn.pruning.heads import HeadCandidate
from petra_optuna.nn.pruning.importance import RandomScores, WeightScores
from petra_optuna.nn.pruning.removal import difference, remove

Scope = Literal["global", "local"]
AnyCandidate = Candidate | HeadCandidate


@dataclasses.dataclass(frozen=True)
class PruningResult:
    """Widths before and after pruning, and what was left out.

    Attributes:
        widths: Channels of each group before and after, by the name of its first layer; of a recurrent layer
            the hidden units of all its layers and directions.
        left_out: Reason why a group could not be pruned, by the name of its first layer.
        heads: Heads of each attention module before and after, by its name; ``widths`` has their features.
    """

    widths: dict[str, tuple[int, int]]
    left_out: dict[str, str]
    heads: dict[str, tuple[int, int]]


def prune_channels(
    model: nn.Module,
    inputs: Inputs,
    scores: Callable[[nn.Module], WeightScores],
    ratio: float,
    scope: Scope,
) -> PruningResult:
    """Remove the least important channels and heads of attention, in place.

    Neither the model's inputs nor its outputs are pruned, nor layers that share their weight. The pruned
    model is compared with one that ignores what was removed; channels whose removal would change
    anything else stay, with that reason.

    Args:
        model: Model in evaluation mode, private to the caller.
        inputs: Batch of at least one sample, to trace the model with.
        scores: Maps the model to scores of each of its weights.
        ratio: Share of the prunable channels to remove.
        scope: ``global`` ranks all channels together, ``local`` removes the share in each layer.

    Raises:
        OperationFailed: When the model cannot be traced, has nothing to prune, or does not compute the
            same with fewer channels anywhere.
    """
    model, opened = open_attention(model)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    model.requires_grad_(True)  # the graph is traced by autograd
    weight_scores = scores(model)
    pruner = _Pruner(*_copy_with_scores(model, weight_scores), inputs)

    def allocate(candidates: Sequence[AnyCandidate]) -> list[int]:
        return _allocate(candidates, ratio, scope)

    first = pruner.prune(model, weight_scores, allocate)
    result = first.result
    if first.problem is not None:
        result = _prune_without_failing(model, pruner, first.unit_counts, first.problem, allocate)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    close_unchanged(model, opened)
    return result


def group_widths(model: nn.Module, inputs: Inputs, scores: WeightScores) -> dict[str, int]:
    """Channels of each group that can lose some, by the name of its first layer.

    Args:
        model: Model in evaluation mode whose weights require gradients; it stays as it is.
        inputs: Batch of at least one sample.
        scores: Scores of every weight.

    Raises:
        OperationFailed: When the model cannot be traced or has nothing to prune.
    """
    opened, scores, _ = _opened_copy(model, scores)
    _, unpruned = _Pruner(opened, scores, inputs).prune_copy(lambda candidates: [0] * len(candidates))
    return {name: before for name, (before, _) in unpruned.result.widths.items()}


def prune_group(
    model: nn.Module, inputs: Inputs, scores: WeightScores, name: str, ratio: float
) -> tuple[nn.Module, int]:
    """A copy in which one group alone has lost its least important channels, and the width that is left.

    Args:
        model: Model in evaluation mode whose weights require gradients; it stays as it is.
        inputs: Batch of at least one sample.
        scores: Scores of every weight.
        name: Name of the group, one of ``group_widths``.
        ratio: Share of its channels to remove.

    Raises:
        OperationFailed: When the model computes something else then.
    """

    def allocate(candidates: Sequence[AnyCandidate]) -> list[int]:
        counts = _allocate(candidates, ratio, "local")
        return [count * (candidate.name == name) for candidate, count in zip(candidates, counts, strict=True)]

    original, scores, opened = _opened_copy(model, scores)
    copied, pruned = _Pruner(original, scores, inputs).prune_copy(allocate)
    if pruned.problem is not None:
        raise OperationFailed(pruned.problem)
    return close_unchanged(copied, opened), pruned.result.widths[name][1]


Allocation = Callable[[Sequence[AnyCandidate]], list[int]]
"""Maps candidates to the number of units that each of them loses."""


@dataclasses.dataclass(frozen=True)
class _CheckedPruning:
    """A pruning, and whether the pruned model still computes what the original does.

    Attributes:
        result: Widths, and what was left out.
        unit_counts: Number of removed units by name of the candidate.
        problem: What else the pruning has changed, or None.
    """

    result: PruningResult
    unit_counts: dict[str, int]
    problem: str | None


@dataclasses.dataclass(frozen=True)
class _Pruner:
    """Prunes copies of a model and compares them with it.

    Attributes:
        original: Model that is never pruned.
        scores: Scores of its weights.
        inputs: Batch that copies are traced and compared on.
    """

    original: nn.Module
    scores: WeightScores
    inputs: Inputs

    def prune(
        self,
        model: nn.Module,
        scores: WeightScores,
        allocate: Allocation,
        excluded: dict[str, str] | None = None,
    ) -> _CheckedPruning:
        """Prune a copy of the original in place and compare it with the original.

        Args:
            model: Copy of the original.
            scores: Scores of its weights.
            allocate: Number of units that each candidate loses.
            excluded: Reasons why candidates are left out, by name.
        """
        excluded = excluded or {}
        graph, eligible, left_out = find_candidates(model, self.inputs, scores)
        candidates = [candidate for candidate in eligible if candidate.name not in excluded]
        if not eligible and not left_out:
            raise OperationFailed("the model has no Linear or convolution whose channels can be removed")
        counts = allocate(candidates)
        losing = [(item, count) for item, count in zip(candidates, counts, strict=True) if count]
        problem = None
        if losing:
            channels = [
                group
                for item, count in losing
                if isinstance(item, Candidate)
                for group in item.least_important(count)
            ]
            heads = [
                (item.heads, item.least_important(count))
                for item, count in losing
                if isinstance(item, HeadCandidate)
            ]
            removal = remove(model, graph, channels, heads)
            problem = difference(model, self.original, self.inputs, removal)
        widths = {
            candidate.name: (candidate.channels, candidate.channels - count * candidate.channels_per_unit)
            for candidate, count in zip(candidates, counts, strict=True)
        }
        names = [candidate.name for candidate in candidates]
        heads_left = {
            candidate.heads.name: (candidate.heads.count, candidate.heads.count - count)
            for candidate, count in zip(candidates, counts, strict=True)
            if isinstance(candidate, HeadCandidate)
        }
        result = PruningResult(widths, left_out | excluded, heads_left)
        return _CheckedPruning(result, dict(zip(names, counts, strict=True)), problem)

    def prune_copy(
        self, allocate: Allocation, excluded: dict[str, str] | None = None
    ) -> tuple[nn.Module, _CheckedPruning]:
        """A pruned copy, and how its pruning went."""
        copied, scores = _copy_with_scores(self.original, self.scores)
        return copied, self.prune(copied, scores, allocate, excluded)


def _prune_without_failing(
    model: nn.Module, pruner: _Pruner, counts: Mapping[str, int], problem: str, allocate: Allocation
) -> PruningResult:
    """Prune all but the candidates on which a pruning by ``counts`` failed; ``model`` becomes the result.

    What these would have lost is spread over the others, where that works as well.
    """

    def keeping(left_out: Container[str]) -> Allocation:
        return lambda candidates: [
            0 if candidate.name in left_out else counts[candidate.name] for candidate in candidates
        ]

    def problem_of(names: Sequence[str]) -> str | None:
        _, pruned = pruner.prune_copy(keeping(counts.keys() - set(names)))
        return pruned.problem

    failing = find_culprits([name for name, count in counts.items() if count], problem, problem_of)
    copied, pruned = pruner.prune_copy(allocate, failing)
    if pruned.problem is not None:
        copied, pruned = pruner.prune_copy(keeping(failing), failing)
    if pruned.problem is not None or not pruned.result.widths:
        raise OperationFailed(pruned.problem or problem)
    vars(model).update(vars(copied))
    return pruned.result


def _opened_copy(
    model: nn.Module, scores: WeightScores
) -> tuple[nn.Module, WeightScores, dict[str, nn.Module]]:
    """A copy of the model with its attention opened, the scores of its weights, and what was opened."""
    copied, copied_scores = _copy_with_scores(model, scores)
    copied, opened = open_attention(copied)
    return copied, copied_scores, opened


def _copy_with_scores(model: nn.Module, scores: WeightScores) -> tuple[nn.Module, WeightScores]:
    """A copy of the model, and the same scores of the copy's weights."""
    memo: dict[int, Any] = {}
    copied = private_copy(model, memo)
    mapped = {memo[id(parameter)]: score for parameter, score in scores.items()}
    return copied, RandomScores(mapped) if isinstance(scores, RandomScores) else mapped


def _allocate(candidates: Sequence[AnyCandidate], ratio: float, scope: Scope) -> list[int]:
    """Units that each candidate loses: lowest blocks first until the share is met most closely."""
    counts = [0] * len(candidates)
    indices = range(len(candidates))
    for ranked in [indices] if scope == "global" else [[index] for index in indices]:
        blocks = [
            (score, index, count) for index in ranked for score, count in candidates[index].removable_blocks()
        ]
        channels_to_remove = ratio * sum(candidates[index].channels for index in ranked)
        for _, index, count in sorted(blocks, key=lambda block: block[0]):
            size = count * candidates[index].channels_per_unit
            if channels_to_remove < size / 2:
                break
            counts[index] += count
            channels_to_remove -= size
    return counts
