"""Structured pruning of channels."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from torch import nn

from petra_optuna.nn.batch_norm import reestimate_batch_norm
from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.pruning.importance import WeightScores
from petra_optuna.nn.pruning.prune import PruningResult, prune_channels
from petra_optuna.operations.context import Context
from petra_optuna.operations.scoring import Scored, score_weights
from petra_optuna.pipeline import Applied
from petra_optuna.pipeline.nodes import PruneNode


@dataclasses.dataclass(frozen=True)
class Prune(PruneNode):
    """Remove channels with everything that is coupled to them, then measure batch norms again."""

    def apply(self, model: nn.Module, context: Context) -> Applied[nn.Module]:
        """Return a copy with fewer channels.

        The report names ``channels`` (before, after) by layer, ``share`` removed of all prunable
        channels, ``batch_norms`` measured again, ``left_out`` with reasons and how many calibration
        samples in how many batches the ``criterion_read``.

        Raises:
            OperationFailed: When the model cannot be traced, has nothing to prune or does not run
                with fewer channels.
        """
        pruned = copy.deepcopy(model).eval()
        scored: list[Scored] = []

        def scores(private: nn.Module) -> WeightScores:
            scored.append(score_weights(private, self.criterion, context))
            return scored[-1].scores

        result = prune_channels(pruned, context.task.example, scores, self.removed, self.scope)
        changed = any(before > after for before, after in result.widths.values())
        layers = 0
        if changed:
            layers = reestimate_batch_norm(pruned, (inputs for inputs, _ in context.calibration_batches()))
        report = _report(model, pruned, context, result, layers)
        return Applied(pruned, {**report, "criterion_read": scored[0].read()})


def _report(
    before: nn.Module, after: nn.Module, context: Context, result: PruningResult, batch_norms: int
) -> dict[str, Any]:
    total = sum(width for width, _ in result.widths.values())
    kept = sum(width for _, width in result.widths.values())
    example = context.task.example
    report: dict[str, Any] = {
        "changed": kept < total,
        "parameters_before": count_parameters(before),
        "parameters_after": count_parameters(after),
        "macs_before": count_macs(before, example),
        "macs_after": count_macs(after, example),
        "share": 1 - kept / total if total else 0.0,
        "channels": {name: list(widths) for name, widths in result.widths.items()},
        "batch_norms": batch_norms,
        "left_out": result.left_out,
    }
    if kept == total:
        report["reason"] = "no layer has blocks of channels that may leave at this ratio"
    return report
