"""Low-rank decomposition of linear, convolution, embedding and recurrent layers."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.attention import close_unchanged, left_closed, open_attention
from petra_optuna.nn.copying import private_copy
from petra_optuna.nn.low_rank import (
    LowRankPair,
    ReductionResult,
    Substitution,
    decomposable_layers,
    reason_against_low_rank,
    reduce_layer,
    reduce_together,
    shared_names,
    substitute,
)
from petra_optuna.operations.context import Context
from petra_optuna.operations.structural import ModelSize, limited, remeasure_batch_norms, size_report
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

    @limited
    def apply(self, model: nn.Module, context: Context) -> Applied[nn.Module]:
        """Return a copy with pairs and factored recurrent layers in place of layers.

        The report names ``ranks`` (before, after; None is a whole matrix), which convolutions are split
        by space (``spatial``), ``batch_norms`` measured again and ``left_out`` with reasons. The matrices of
        a recurrent layer stand under their torch names. ``outputs_moved`` is the largest change of an output
        by the factors, before batch norms are measured again, as a share of the largest output. The model
        with factors is compared with one whose layers hold the products of the factors: a layer on which
        the model relies otherwise than by calling it stays.

        Raises:
            OperationFailed: When the model has no layer to decompose.
        """
        reduced, opened = open_attention(private_copy(model).eval())
        layers = decomposable_layers(reduced)
        left_out = {
            name: reason
            for name, part in reduced.named_modules()
            if (reason := reason_against_low_rank(part))
        } | left_closed(reduced)
        if not layers:
            raise OperationFailed(_nothing_to_decompose(left_out))
        shared = shared_names(reduced)
        left_out |= dict.fromkeys(shared & layers.keys(), "it shares its weight with another layer")
        results = self._reduce({name: layer for name, layer in layers.items() if name not in shared})
        factored = {name: result.layer for name, result in results.items() if result.layer is not None}
        placed = substitute(reduced, factored, context.calibration_sample())
        reduced = close_unchanged(placed.model, opened)
        before, after = (ModelSize.of(each, context.task.example) for each in (model, reduced))
        report = _report(results, placed, size_report(before, after), left_out)
        report["batch_norms"] = remeasure_batch_norms(reduced, context) if report["changed"] else 0
        return Applied(reduced, report)

    def _reduce(self, layers: dict[str, nn.Module]) -> dict[str, ReductionResult]:
        if self.scope == "global":
            return reduce_together(layers, self.rule, self.threshold)
        return {name: reduce_layer(layer, self.rule, self.threshold) for name, layer in layers.items()}


def _report(
    results: dict[str, ReductionResult],
    placed: Substitution,
    sizes: dict[str, int],
    left_out: dict[str, str],
) -> dict[str, Any]:
    ranks: dict[str, list[int | None]] = {}
    pairs: dict[str, LowRankPair] = {}
    left_out |= placed.left_out
    for name, result in results.items():
        left_out |= {_join(name, inner): reason for inner, reason in result.left_out.items()}
        if name in placed.left_out:
            continue
        ranks |= {_join(name, inner): list(pair) for inner, pair in result.ranks.items()}
        if isinstance(result.layer, LowRankPair):
            pairs[name] = result.layer
    report: dict[str, Any] = {
        "changed": bool(ranks),
        **sizes,
        "ranks": ranks,
        "spatial": [name for name, pair in pairs.items() if pair.split == "spatial"],
        "outputs_moved": placed.moved,
        "left_out": left_out,
    }
    if placed.left_out and not ranks:
        report["reason"] = "the model relies on each layer that would have fewer weights as factors"
    elif not ranks:
        report["reason"] = "no layer would have fewer weights as factors of the rank asked for"
    return report


def _nothing_to_decompose(left_out: dict[str, str]) -> str:
    first = "".join(f"; {name or 'the model'}: {reason}" for name, reason in [*left_out.items()][:1])
    return (
        "low_rank: the model has no layer to decompose "
        f"(Linear, ungrouped convolution, Embedding, GRU or LSTM{first}); leave low_rank out of the space"
    )


def _join(name: str, inner: str) -> str:
    return f"{name}.{inner}" if name and inner else name or inner
