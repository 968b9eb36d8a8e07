"""Structured pruning: channels leave together with everything that is coupled to them.

torch-pruning finds which channels are coupled (arXiv 2301.12900); what leaves is decided here, in
blocks that keep widths multiples of 8, so that no layer vanishes and the asked share is met closely.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import nn

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.inputs import Inputs
from petra_optuna.nn.pruning.candidates import Candidate, find_candidates
from petra_optuna.nn.pruning.importance import RandomScores, WeightScores
from petra_optuna.nn.pruning.removal import difference, remove

Scope = Literal["global", "local"]


@dataclasses.dataclass(frozen=True)
class PruningResult:
    """What happened.

    Attributes:
        widths: For each group, by the name of its first layer: channels before and after. Of a recurrent
            layer these are the hidden units of all its layers and directions.
        left_out: For each group that could not be pruned: why.
    """

    widths: dict[str, tuple[int, int]]
    left_out: dict[str, str]


def prune_channels(
    model: nn.Module,
    inputs: Inputs,
    scores: Callable[[nn.Module], WeightScores],
    ratio: float,
    scope: Scope,
) -> PruningResult:
    """Remove the least important channels, in place.

    Neither the model's inputs nor its outputs are pruned, nor layers that share their weight. The pruned
    model is compared with one that ignores what was removed; channels whose removal would change
    anything else stay, with that reason.

    Args:
        model: In evaluation mode and private to the caller.
        inputs: A batch of at least one sample, to trace the model with.
        scores: Scores of every weight of the model.
        ratio: Share of the prunable channels to remove.
        scope: ``global`` ranks all channels together, ``local`` removes the share in each layer.

    Raises:
        OperationFailed: When the model cannot be traced, has nothing to prune, or does not compute the
            same with fewer channels anywhere.
    """
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    model.requires_grad_(True)  # the graph is traced by autograd
    attempts = _Attempts(*_twin(model, weights := scores(model)), inputs)

    def select(candidates: Sequence[Candidate]) -> list[int]:
        return _select(candidates, ratio, scope)

    first = attempts.on(model, weights, select)
    result = first.pruned
    if first.problem is not None:
        result = _without_culprits(model, attempts, first.counts, first.problem, select)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return result


def group_widths(model: nn.Module, inputs: Inputs, scores: WeightScores) -> dict[str, int]:
    """Channels of each group that can lose some, by the name of its first layer.

    Args:
        model: In evaluation mode, its weights requiring gradients; it stays as it is.
        inputs: A batch of at least one sample.
        scores: Of every weight.

    Raises:
        OperationFailed: As ``prune_channels``.
    """
    _, attempt = _Attempts(model, scores, inputs).on_copy(lambda candidates: [0] * len(candidates))
    return {name: before for name, (before, _) in attempt.pruned.widths.items()}


def prune_group(
    model: nn.Module, inputs: Inputs, scores: WeightScores, name: str, ratio: float
) -> tuple[nn.Module, int]:
    """A copy in which one group alone has lost its least important channels, and the width that is left.

    Args:
        model: As ``group_widths``.
        inputs: A batch of at least one sample.
        scores: Of every weight.
        name: One of ``group_widths``.
        ratio: Share of its channels to remove.

    Raises:
        OperationFailed: When the model computes something else then.
    """

    def select(candidates: Sequence[Candidate]) -> list[int]:
        counts = _select(candidates, ratio, "local")
        return [count * (each.name == name) for each, count in zip(candidates, counts, strict=True)]

    copied, attempt = _Attempts(model, scores, inputs).on_copy(select)
    if attempt.problem is not None:
        raise OperationFailed(attempt.problem)
    return copied, attempt.pruned.widths[name][1]


Select = Callable[[Sequence[Candidate]], list[int]]
"""How many units each candidate loses."""


@dataclasses.dataclass(frozen=True)
class _Attempt:
    """What was removed, in units by name, and what is wrong with the result."""

    pruned: PruningResult
    counts: dict[str, int]
    problem: str | None


@dataclasses.dataclass(frozen=True)
class _Attempts:
    """A model that is never pruned, the scores of its weights, and a batch."""

    original: nn.Module
    weights: WeightScores
    inputs: Inputs

    def on(
        self,
        model: nn.Module,
        weights: WeightScores,
        select: Select,
        excluded: dict[str, str] | None = None,
    ) -> _Attempt:
        """Prune a copy of the original in place and compare it with the original.

        Args:
            model: The copy.
            weights: Scores of its weights.
            select: Chooses among the candidates.
            excluded: Candidates that stay, and why.
        """
        excluded = excluded or {}
        graph, found, left_out = find_candidates(model, self.inputs, weights)
        candidates = [candidate for candidate in found if candidate.name not in excluded]
        if not found and not left_out:
            raise OperationFailed("the model has no Linear or convolution whose channels can be removed")
        counts = select(candidates)
        wanted = [
            item
            for candidate, count in zip(candidates, counts, strict=True)
            for item in (candidate.least_important(count) if count else ())
        ]
        problem = None
        if wanted:
            problem = difference(model, self.original, self.inputs, remove(model, graph, wanted))
        widths = {
            candidate.name: (candidate.channels, candidate.channels - count * candidate.weight)
            for candidate, count in zip(candidates, counts, strict=True)
        }
        names = [candidate.name for candidate in candidates]
        return _Attempt(
            PruningResult(widths, left_out | excluded), dict(zip(names, counts, strict=True)), problem
        )

    def on_copy(self, select: Select, excluded: dict[str, str] | None = None) -> tuple[nn.Module, _Attempt]:
        """A pruned copy, and what became of it."""
        copied, weights = _twin(self.original, self.weights)
        return copied, self.on(copied, weights, select, excluded)


def _without_culprits(
    model: nn.Module, attempts: _Attempts, counts: Mapping[str, int], problem: str, select: Select
) -> PruningResult:
    """Prune all but the candidates on which an attempt at ``counts`` failed; ``model`` becomes the result."""

    def problem_of(names: Sequence[str]) -> str | None:
        _, attempt = attempts.on_copy(
            lambda candidates: [counts[each.name] * (each.name in names) for each in candidates]
        )
        return attempt.problem

    culprits = _culprits([name for name, count in counts.items() if count], problem, problem_of)
    work, last = attempts.on_copy(select, culprits)
    if last.problem is not None or not last.pruned.widths:
        raise OperationFailed(last.problem or problem)
    vars(model).update(vars(work))
    return last.pruned


def _culprits(
    names: Sequence[str], problem: str, problem_of: Callable[[Sequence[str]], str | None]
) -> dict[str, str]:
    """Those of the names that have a problem by themselves, found by halving."""
    if len(names) == 1:
        return {names[0]: problem}
    half = len(names) // 2
    found: dict[str, str] = {}
    for part in (names[:half], names[half:]):
        remaining = problem_of(part)
        if remaining is not None:
            found |= _culprits(part, remaining, problem_of)
    return found


def _twin(model: nn.Module, weights: WeightScores) -> tuple[nn.Module, WeightScores]:
    """A copy of the model and the same scores of its weights."""
    memo: dict[int, Any] = {}
    copied = copy.deepcopy(model, memo)
    mapped = {memo[id(parameter)]: score for parameter, score in weights.items()}
    return copied, RandomScores(mapped) if isinstance(weights, RandomScores) else mapped


def _select(candidates: Sequence[Candidate], ratio: float, scope: Scope) -> list[int]:
    """Units that each candidate loses: lowest blocks first until the share is met most closely."""
    counts = [0] * len(candidates)
    places = range(len(candidates))
    for ranked in [places] if scope == "global" else [[place] for place in places]:
        blocks = [(score, place, count) for place in ranked for score, count in candidates[place].blocks()]
        wanted = ratio * sum(candidates[place].channels for place in ranked)
        for _, place, count in sorted(blocks, key=lambda block: block[0]):
            size = count * candidates[place].weight
            if wanted < size / 2:
                break
            counts[place] += count
            wanted -= size
    return counts
