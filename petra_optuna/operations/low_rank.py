"""Low-rank decomposition of linear and convolution layers."""

from __future__ import annotations

import copy
import dataclasses
from typing import Annotated, Any, ClassVar

import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from torch import nn

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.low_rank import (
    Decomposable,
    LowRankPair,
    RankRule,
    break_even_rank,
    choose_rank,
    decompose,
    is_decomposable,
    matrix,
    recompose,
    round_rank,
)
from petra_optuna.nn.surgery import replace_module, shared_layers
from petra_optuna.operations.context import Context
from petra_optuna.pipeline import Applied, Kind, Operation, When

RULES: tuple[RankRule, ...] = ("energy", "singular_values", "share")


@dataclasses.dataclass(frozen=True)
class LowRank(Operation):
    """Replace layers by pairs of the rank that the rule asks for, where that saves weights.

    Attributes:
        rule: How a layer's rank is chosen.
        energy: Share of the squared singular values that is kept (explained variance).
        singular_values: Share of the singular values that is kept.
        share: Rank as a share of mn / (m + n), the largest that saves weights.
    """

    name: ClassVar[str] = "low_rank"
    code: ClassVar[str] = "LR"
    kind: ClassVar[Kind] = "structure"

    rule: Annotated[str, CategoricalDistribution(RULES)] = "energy"
    energy: Annotated[float, FloatDistribution(0.5, 0.999), When("rule", ("energy",))] = 0.9
    singular_values: Annotated[float, FloatDistribution(0.2, 0.95), When("rule", ("singular_values",))] = 0.6
    share: Annotated[float, FloatDistribution(0.1, 0.9), When("rule", ("share",))] = 0.5

    @property
    def shape_follows_weights(self) -> bool:
        """Ranks by a share of the spectrum do."""
        return self.rule != "share"

    def apply(self, model: nn.Module, context: Context) -> Applied[nn.Module]:
        """Return a copy with pairs in place of layers.

        The report names ``ranks`` (before, after; before is None for a layer that was whole, after is
        None for a pair that is cheaper as one layer) and ``left_out`` with reasons.

        Raises:
            OperationFailed: When the model has no Linear or Conv2d, or reads a replaced layer's weight.
        """
        reduced = copy.deepcopy(model)
        layers = _layers(reduced)
        if not layers:
            raise OperationFailed("low_rank: the model has no Linear or Conv2d layer to decompose")
        shared = shared_layers(reduced)
        shared |= {owner.rpartition(".")[0] for owner in shared}  # a pair shares what its layers share
        ranks: dict[str, tuple[int | None, int | None]] = {}
        left_out: dict[str, str] = {}
        for name, layer in layers.items():
            if name in shared:
                left_out[name] = "it shares its weight with another layer"
                continue
            replacement = self._replacement(layer)
            if replacement is None:
                left_out[name] = "no rank that keeps what the rule asks for saves weights"
                continue
            reduced = replace_module(reduced, name, replacement)
            ranks[name] = (_rank(layer), _rank(replacement))
        return Applied(reduced, _report(model, reduced, context, ranks, left_out))

    def _replacement(self, layer: Decomposable | LowRankPair) -> Decomposable | LowRankPair | None:
        """The layer with the rank that the rule asks for, or None where that saves nothing."""
        limit = break_even_rank(layer)
        rule: RankRule = next(rule for rule in RULES if rule == self.rule)
        singular_values = torch.linalg.svdvals(matrix(layer).detach().double())
        rank = choose_rank(singular_values, rule, getattr(self, rule), limit)
        rank = round_rank(min(rank, len(singular_values)), limit)
        if rank < min(limit, _rank(layer) or limit):
            return decompose(layer, rank)
        if isinstance(layer, LowRankPair) and layer.rank > limit:
            return recompose(layer)
        return None


def _layers(model: nn.Module) -> dict[str, Decomposable | LowRankPair]:
    """Pairs, and decomposable layers outside pairs, by name."""
    found: dict[str, Decomposable | LowRankPair] = {}
    inside_pairs: set[nn.Module] = set()
    for name, module in model.named_modules():
        if isinstance(module, LowRankPair):
            found[name] = module
            inside_pairs |= set(module.children())
        elif module not in inside_pairs and is_decomposable(module):
            assert isinstance(module, nn.Linear | nn.Conv2d)
            found[name] = module
    return found


def _rank(layer: nn.Module) -> int | None:
    return layer.rank if isinstance(layer, LowRankPair) else None


def _report(
    before: nn.Module,
    after: nn.Module,
    context: Context,
    ranks: dict[str, tuple[int | None, int | None]],
    left_out: dict[str, str],
) -> dict[str, Any]:
    example = context.task.example
    try:
        macs_after = count_macs(after, example)
    except AttributeError as error:
        raise OperationFailed(
            f"low_rank: the model reads a part of a layer that was replaced by a pair ({error})"
        ) from error
    report: dict[str, Any] = {
        "changed": bool(ranks),
        "parameters_before": count_parameters(before),
        "parameters_after": count_parameters(after),
        "macs_before": count_macs(before, example),
        "macs_after": macs_after,
        "ranks": {name: list(pair) for name, pair in ranks.items()},
        "left_out": left_out,
    }
    if not ranks:
        report["reason"] = "no layer would have fewer weights as a pair of the rank asked for"
    return report
