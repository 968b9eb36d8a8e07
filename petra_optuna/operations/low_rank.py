"""Low-rank decomposition of linear, convolution, embedding and recurrent layers."""

from __future__ import annotations

import copy
import dataclasses
from typing import Annotated, Any, ClassVar

from optuna.distributions import CategoricalDistribution, FloatDistribution
from torch import nn

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.batch_norm import reestimate_batch_norm
from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.low_rank import (
    LowRankPair,
    RankRule,
    ReductionResult,
    decomposable_layers,
    reason_against_low_rank,
    reduce_layer,
    reduce_together,
    shared_names,
)
from petra_optuna.nn.surgery import replace_module
from petra_optuna.operations.context import Context
from petra_optuna.pipeline import Applied, Kind, Operation, When

RULES: tuple[RankRule, ...] = ("energy", "singular_values", "share")


@dataclasses.dataclass(frozen=True)
class LowRank(Operation):
    """Replace layers by factors of the rank that the rule asks for, then measure batch norms again.

    A layer is replaced only where that saves weights.

    Attributes:
        scope: ``global`` lets the singular values of all layers compete for weights, ``local`` asks the same
            of each layer.
        rule: How ranks are chosen.
        energy: Share of the squared singular values that is kept (explained variance), ``global`` on average.
        singular_values: Share of the singular values that is kept, ``global`` on average.
        share: Of the weights that is left, ``local`` of mn / (m + n), the largest rank that saves weights.
    """

    name: ClassVar[str] = "low_rank"
    code: ClassVar[str] = "LR"
    kind: ClassVar[Kind] = "structure"

    scope: Annotated[str, CategoricalDistribution(("global", "local"))] = "global"
    rule: Annotated[str, CategoricalDistribution(RULES)] = "energy"
    energy: Annotated[float, FloatDistribution(0.5, 0.999), When("rule", ("energy",))] = 0.9
    singular_values: Annotated[float, FloatDistribution(0.2, 0.95), When("rule", ("singular_values",))] = 0.6
    share: Annotated[float, FloatDistribution(0.1, 0.9), When("rule", ("share",))] = 0.5

    @property
    def shape_follows_weights(self) -> bool:
        """Ranks by a share of the spectrum do, and which way a convolution is split."""
        return True

    def apply(self, model: nn.Module, context: Context) -> Applied[nn.Module]:
        """Return a copy with pairs and factored recurrent layers in place of layers.

        The report names ``ranks`` (before, after; None is a whole matrix), which convolutions are split
        by space (``spatial``), ``batch_norms`` measured again and ``left_out`` with reasons. The matrices of
        a recurrent layer stand under their torch names.

        Raises:
            OperationFailed: When the model has no layer to decompose, or reads a part of one that is gone.
        """
        reduced = copy.deepcopy(model)
        layers = decomposable_layers(reduced)
        if not layers:
            raise OperationFailed(
                "low_rank: the model has no layer to decompose "
                "(ungrouped Linear, Conv1d, Conv2d, Embedding, GRU or LSTM); leave low_rank out of the space"
            )
        shared = shared_names(reduced)
        left_out = {
            name: reason
            for name, part in reduced.named_modules()
            if (reason := reason_against_low_rank(part))
        }
        left_out |= dict.fromkeys(shared & layers.keys(), "it shares its weight with another layer")
        done = self._reduced({name: layer for name, layer in layers.items() if name not in shared})
        for name, part in done.items():
            reduced = replace_module(reduced, name, part.layer or layers[name])
        reduced, macs_after = _count_or_restore(reduced, context, layers, done, left_out)
        report = _report(model, reduced, context, done, left_out) | {"macs_after": macs_after}
        batches = (inputs for inputs, _ in context.calibration_batches())
        report["batch_norms"] = reestimate_batch_norm(reduced, batches) if report["changed"] else 0
        return Applied(reduced, report)

    def _reduced(self, layers: dict[str, nn.Module]) -> dict[str, ReductionResult]:
        rule: RankRule = next(rule for rule in RULES if rule == self.rule)
        threshold: float = getattr(self, rule)
        if self.scope == "global":
            return reduce_together(layers, rule, threshold)
        return {name: reduce_layer(layer, rule, threshold) for name, layer in layers.items()}


def _count_or_restore(
    model: nn.Module,
    context: Context,
    layers: dict[str, nn.Module],
    done: dict[str, ReductionResult],
    left_out: dict[str, str],
) -> tuple[nn.Module, int]:
    """Multiply-accumulates, with layers back in place whose parts the model reads without calling them."""
    while True:
        try:
            return model, count_macs(model, context.task.example)
        except AttributeError as error:
            read = [name for name, part in done.items() if part.layer is not None and part.layer is error.obj]
            if not read:
                raise OperationFailed(
                    f"low_rank: the model reads a part of a layer that was replaced ({error})"
                ) from error
            model = replace_module(model, read[0], layers[read[0]])
            del done[read[0]]
            left_out[read[0]] = f"the model reads its {error.name!r} without calling it"


def _report(
    before: nn.Module,
    after: nn.Module,
    context: Context,
    done: dict[str, ReductionResult],
    left_out: dict[str, str],
) -> dict[str, Any]:
    ranks: dict[str, list[int | None]] = {}
    for name, part in done.items():
        ranks |= {_joined(name, inner): list(pair) for inner, pair in part.ranks.items()}
        left_out |= {_joined(name, inner): reason for inner, reason in part.left_out.items()}
    pairs = {name: part.layer for name, part in done.items() if isinstance(part.layer, LowRankPair)}
    report: dict[str, Any] = {
        "changed": bool(ranks),
        "parameters_before": count_parameters(before),
        "parameters_after": count_parameters(after),
        "macs_before": count_macs(before, context.task.example),
        "ranks": ranks,
        "spatial": [name for name, pair in pairs.items() if pair.split == "spatial"],
        "left_out": left_out,
    }
    if not ranks:
        report["reason"] = "no layer would have fewer weights as factors of the rank asked for"
    return report


def _joined(name: str, inner: str) -> str:
    return f"{name}.{inner}" if name and inner else name or inner
