"""Structured pruning of channels and of attention heads."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from petra_optuna.nn.copying import private_copy
from petra_optuna.nn.pruning import PruningResult, WeightScores, prune_channels
from petra_optuna.operations.context import Context
from petra_optuna.operations.scoring import WeightScoring, score_weights
from petra_optuna.operations.structural import ModelSize, limited, remeasure_batch_norms, size_report
from petra_optuna.pipeline import Applied
from petra_optuna.pipeline.nodes import PruneNode


@dataclasses.dataclass(frozen=True)
class Prune(PruneNode):
    """Remove channels and heads with everything that is coupled to them, then measure batch norms again.

    Example:
        >>> Prune(removed=0.5, criterion="taylor", scope="global").code
        'Pr'
    """

    @limited
    def apply(self, model: nn.Module, context: Context) -> Applied[nn.Module]:
        """Return a copy with fewer channels and heads.

        The report names ``channels`` (before, after) by layer, ``heads`` (before, after) by attention module,
        whose features are among the channels, ``share`` removed of all prunable channels, ``batch_norms``
        measured again, ``left_out`` with reasons and how many calibration samples in how many batches the
        ``criterion_read``.

        Raises:
            OperationFailed: When the model cannot be traced, has nothing to prune or does not run
                with fewer channels.
        """
        pruned, example = private_copy(model).eval(), context.task.example
        scorings: list[WeightScoring] = []

        def scores(private: nn.Module) -> WeightScores:
            scorings.append(score_weights(private, self.criterion, context))
            return scorings[-1].scores

        result = prune_channels(pruned, example, scores, self.removed, self.scope)
        changed = any(before > after for before, after in result.widths.values())
        layers = remeasure_batch_norms(pruned, context) if changed else 0
        sizes = size_report(ModelSize.of(model, example), ModelSize.of(pruned, example))
        report = {**_report(result, sizes, layers), "criterion_read": scorings[0].data_read()}
        return Applied(pruned, report)


def _report(result: PruningResult, sizes: dict[str, int], batch_norms: int) -> dict[str, Any]:
    total = sum(width for width, _ in result.widths.values())
    kept = sum(width for _, width in result.widths.values())
    report: dict[str, Any] = {
        "changed": kept < total,
        **sizes,
        "share": 1 - kept / total if total else 0.0,
        "channels": {name: list(widths) for name, widths in result.widths.items()},
        "heads": {name: list(counts) for name, counts in result.heads.items()},
        "batch_norms": batch_norms,
        "left_out": result.left_out,
    }
    if kept == total:
        report["reason"] = "no layer has heads or blocks of channels that may leave at this ratio"
    return report
