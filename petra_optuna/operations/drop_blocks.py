"""Removal of whole residual blocks and layers."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from torch import nn

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.pruning import block_score, drop_blocks, find_replaceable
from petra_optuna.operations.context import Context
from petra_optuna.operations.scoring import WeightScoring, score_weights
from petra_optuna.operations.structural import ModelSize, remeasure_batch_norms, size_report
from petra_optuna.pipeline import Applied
from petra_optuna.pipeline.nodes import DropBlocksNode

LAW_SAMPLES = 32
"""Calibration samples on which a block must return its input when its weights are zero."""


@dataclasses.dataclass(frozen=True)
class DropBlocks(DropBlocksNode):
    """Put identities in the place of the least important blocks, then measure batch norms again.

    A block is a residual block, or a layer outside of such blocks that maps a shape onto itself.

    Example:
        >>> DropBlocks(removed=0.25).code
        'DB'
    """

    def apply(self, model: nn.Module, context: Context) -> Applied[nn.Module]:
        """Return a copy with fewer blocks.

        The report names the blocks that were ``dropped`` and ``kept`` with their scores, least
        important first, ``left_out`` with reasons, ``batch_norms`` measured again and how many
        calibration samples in how many batches the ``criterion_read``.

        Raises:
            OperationFailed: When the model has no block that an identity can replace.
        """
        shortened = copy.deepcopy(model).eval()
        inputs, _ = next(context.calibration_batches(limit=LAW_SAMPLES, batch_size=LAW_SAMPLES))
        blocks = find_replaceable(shortened, inputs)
        if not blocks.names:
            raise OperationFailed(_nothing_to_drop(blocks.left_out))
        scoring = score_weights(shortened, self.criterion, context)
        scores, unscored = self._score_blocks(shortened, blocks.names, scoring)
        left_out = blocks.left_out | unscored
        ranking = sorted(scores, key=scores.__getitem__)
        wanted, example = max(1, round(self.removed * len(ranking))), context.task.example
        dropped, failed = drop_blocks(shortened, ranking, wanted, example)
        left_out |= failed
        if not dropped:
            raise OperationFailed(_nothing_to_drop(left_out))
        layers = remeasure_batch_norms(shortened, context)
        report: dict[str, Any] = {
            "changed": True,
            **size_report(ModelSize.of(model, example), ModelSize.of(shortened, example)),
            "dropped": {name: scores[name] for name in dropped},
            "kept": {name: scores[name] for name in ranking if name not in {*dropped, *failed}},
            "batch_norms": layers,
            "left_out": left_out,
            "criterion_read": scoring.data_read(),
        }
        return Applied(shortened, report)

    def _score_blocks(
        self, model: nn.Module, names: tuple[str, ...], scoring: WeightScoring
    ) -> tuple[dict[str, float], dict[str, str]]:
        """Scores of blocks by name, and of those that the criterion cannot score: why."""
        scores: dict[str, float] = {}
        left_out: dict[str, str] = {}
        for name in names:
            score = block_score(model.get_submodule(name), self.criterion, scoring.scores)
            if score is None:
                left_out[name] = f"{self.criterion} has nothing to score in it"
            else:
                scores[name] = score
        return scores, left_out


def _nothing_to_drop(left_out: dict[str, str]) -> str:
    if not left_out:
        return "the model has no residual block and no layer that maps a shape onto itself"
    name, reason = next(iter(left_out.items()))
    return f"none of the {len(left_out)} blocks of the model can be dropped; {name}: {reason}"
