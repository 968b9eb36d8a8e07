"""A criterion's scores of a model's weights, on calibration batches where it reads data."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.pruning import Criterion, WeightScores, weight_scores
from petra_optuna.operations.context import Context
from petra_optuna.operations.training import plain_loss

_READS: dict[Criterion, tuple[int, int]] = {"taylor": (32, 8), "hessian": (4, 32)}
"""Calibration batches and their size. For Taylor smaller than for statistics: the gradient of a large
batch of a trained model is nearly noise. Curvature does not vanish so, and one batch costs as much as
ten gradients."""


@dataclasses.dataclass(frozen=True)
class WeightScoring:
    """Scores of a model's weights, and what they were computed from.

    Attributes:
        scores: Score of each weight tensor, of its shape.
        batches: Number of calibration batches that the criterion read.
        samples: Number of samples in all of them.
    """

    scores: WeightScores
    batches: int
    samples: int

    def data_read(self) -> dict[str, int]:
        """The counts as a node's report has them."""
        return {"batches": self.batches, "samples": self.samples}


def score_weights(model: nn.Module, criterion: Criterion, context: Context) -> WeightScoring:
    """Score every weight; only the calibration split is read.

    Args:
        model: In evaluation mode; weights that are scored by their gradient require gradients.
        criterion: Measure by which a weight is important.
        context: Data, loss and seed.

    Raises:
        OperationFailed: When scores are not finite.
    """
    count, size = _READS.get(criterion, (0, 0))
    batches = list(context.calibration_batches(limit=count * size, batch_size=size)) if count else []
    scores = weight_scores(
        model,
        criterion,
        batches=batches,
        loss=lambda scored, batch: plain_loss(scored, batch, context),
        seed=context.seed,
    )
    if not all(torch.isfinite(score).all() for score in scores.values()):
        raise OperationFailed(f"the {criterion} scores of some weights are not finite")
    return WeightScoring(scores, len(batches), sum(len(targets) for _, targets in batches))
