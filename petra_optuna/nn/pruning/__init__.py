"""Structured pruning of channels and heads, and removal of whole blocks."""

from petra_optuna.nn.pruning.blocks import block_score, find_replaceable
from petra_optuna.nn.pruning.dropping import PassThrough, drop_blocks
from petra_optuna.nn.pruning.forms import NUMBERS as HEAD_NUMBERS
from petra_optuna.nn.pruning.importance import (
    CRITERIA,
    Criterion,
    WeightScores,
    magnitude_scores,
    weight_scores,
)
from petra_optuna.nn.pruning.prune import PruningResult, Scope, group_widths, prune_channels, prune_group

__all__ = [
    "CRITERIA",
    "HEAD_NUMBERS",
    "Criterion",
    "PassThrough",
    "PruningResult",
    "Scope",
    "WeightScores",
    "block_score",
    "drop_blocks",
    "find_replaceable",
    "group_widths",
    "magnitude_scores",
    "prune_channels",
    "prune_group",
    "weight_scores",
]
