"""Low-rank decomposition of linear, convolution, embedding and recurrent layers."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from torch import nn

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.attention import close_unchanged, left_closed, open_attention
from petra_optuna.nn.low_rank import (
    LowRankPair,
    ReductionResult,
    decomposable_layers,
    reason_against_low_rank,
    reduce_layer,
    reduce_together,
    shared_names,
)
from petra_optuna.nn.surgery import replace_module
from petra_optuna.operations.context import Context
from petra_optuna.operations.structural import ModelSize, remeasure_batch_norms, size_report
from petra_optuna.pipeline import Applied
from petra_optuna.pipeline.nodes import LowRankNode


@dataclasses.dataclass(frozen=True)
class LowRank(LowRankNode):
    """Replace layers by factors of the rank that the rule asks for, then measure batch norms again.

    A layer is replaced only where that saves weights.

    Example:
        >>> LowRank(rule="energy", kept_energy=0.9).code
        'LR'
    """

    def apply(self, model: nn.Module, context: Context) -> Applied[nn.Module]:
        """Return a copy with pairs and factored recurrent layers in place of layers.

        The report names ``ranks`` (before, after; None is a whole matrix), which convolutions are split
        by space (``spatial``), ``batch_norms`` measured again and ``left_out`` with reasons. The matrices of
        a recurrent layer stand under their torch names.

        Raises:
            OperationFailed: When the model has no layer to decompose, or reads a part of one that is gone.
        """
        reduced, opened = open_attention(copy.deepcopy(model))
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
        } | left_closed(reduced)
        left_out |= dict.fromkeys(shared & layers.keys(), "it shares its weight with another layer")
        results = self._reduce({name: layer for name, layer in layers.items() if name not in shared})
        for name, result in results.items():
            reduced = replace_module(reduced, name, result.layer or layers[name])
        reduced, after = _count_or_restore(reduced, context, layers, results, left_out)
        reduced = close_unchanged(reduced, opened)
        sizes = size_report(ModelSize.of(model, context.task.example), after)
        report = _report(results, sizes, left_out)
        report["batch_norms"] = remeasure_batch_norms(reduced, context) if report["changed"] else 0
        return Applied(reduced, report)

    def _reduce(self, layers: dict[str, nn.Module]) -> dict[str, ReductionResult]:
        if self.scope == "global":
            return reduce_together(layers, self.rule, self.threshold)
        return {name: reduce_layer(layer, self.rule, self.threshold) for name, layer in layers.items()}


def _count_or_restore(
    model: nn.Module,
    context: Context,
    layers: dict[str, nn.Module],
    results: dict[str, ReductionResult],
    left_out: dict[str, str],
) -> tuple[nn.Module, ModelSize]:
    """Count, with layers back in place whose parts the model reads without calling them."""
    while True:
        try:
            return model, ModelSize.of(model, context.task.example)
        except AttributeError as error:
            replaced = {name: result.layer for name, result in results.items() if result.layer is not None}
            read = [name for name, layer in replaced.items() if layer is error.obj]
            if not read:
                raise OperationFailed(
                    f"low_rank: the model reads a part of a layer that was replaced ({error})"
                ) from error
            model = replace_module(model, read[0], layers[read[0]])
            del results[read[0]]
            left_out[read[0]] = f"the model reads its {error.name!r} without calling it"


def _report(
    results: dict[str, ReductionResult], sizes: dict[str, int], left_out: dict[str, str]
) -> dict[str, Any]:
    ranks: dict[str, list[int | None]] = {}
    for name, result in results.items():
        ranks |= {_join(name, inner): list(pair) for inner, pair in result.ranks.items()}
        left_out |= {_join(name, inner): reason for inner, reason in result.left_out.items()}
    pairs = {name: result.layer for name, result in results.items() if isinstance(result.layer, LowRankPair)}
    report: dict[str, Any] = {
        "changed": bool(ranks),
        **sizes,
        "ranks": ranks,
        "spatial": [name for name, pair in pairs.items() if pair.split == "spatial"],
        "left_out": left_out,
    }
    if not ranks:
        report["reason"] = "no layer would have fewer weights as factors of the rank asked for"
    return report


def _join(name: str, inner: str) -> str:
    return f"{name}.{inner}" if name and inner else name or inner
