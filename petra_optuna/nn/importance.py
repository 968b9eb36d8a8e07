"""How much each weight matters, and how much each group of coupled channels matters.

A criterion scores every weight; torch-pruning's group importance sums the scores of the weights that
a channel owns in each layer and averages over the layers of its group (arXiv 2301.12900). One
aggregation serves every criterion, over residual sums, concatenations and flattening alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

WeightScores = Mapping[nn.Parameter, Tensor]


def magnitude_scores(model: nn.Module, power: int) -> WeightScores:
    """``|w|^power`` for every weight."""
    return {parameter: parameter.detach().abs().pow(power) for parameter in model.parameters()}


def taylor_scores(
    model: nn.Module, batches: Iterable[Any], loss: Callable[[nn.Module, Any], Tensor]
) -> WeightScores:
    """``(w dL/dw)^2`` averaged over batches: the squared first-order change of the loss without w.

    Squares of each batch (arXiv 1906.10771), because the gradient of the whole set is about
    zero where training has converged. The smaller the batches the better: on the digits at half width
    the model keeps 91 % accuracy with batches of 8 and 83 % with batches of 32.

    Args:
        model: In evaluation mode; neither its weights nor their gradients change.
        batches: At least one.
        loss: The loss of one batch.

    Raises:
        ValueError: When there is no batch.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    scores = {parameter: torch.zeros_like(parameter) for parameter in model.parameters()}
    count = 0
    for count, batch in enumerate(batches, start=1):  # noqa: B007
        gradients = torch.autograd.grad(loss(model, batch), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                scores[parameter] += (parameter.detach() * gradient).square()
    if count == 0:
        raise ValueError("Taylor scores need at least one batch")
    return {parameter: score / count for parameter, score in scores.items()}


def channel_scores(group: tp.dependency.Group, scores: WeightScores) -> Tensor | None:
    """One score per channel of the group's root, mean 1 over the group.

    The mean of 1 makes groups comparable in a global ranking, whatever their width and depth.

    Returns:
        Scores (channels,), or None where no layer of the group has weights to score.
    """
    weights = {
        parameter
        for dependency, _ in group
        for parameter in _parameters(dependency.layer)
        if parameter in scores
    }
    with _holding(weights, scores):
        summed: Tensor | None = tp.importance.GroupMagnitudeImportance(p=1, normalizer=None)(group)
    if summed is None:
        return None
    mean = summed.mean()
    return summed / mean if mean > 0 else summed


def _parameters(layer: object) -> Iterator[nn.Parameter]:
    if isinstance(layer, nn.Module):
        yield from layer.parameters()


@contextmanager
def _holding(parameters: Iterable[nn.Parameter], scores: WeightScores) -> Iterator[None]:
    """Let the parameters hold their scores inside the block: the importance reads weights only."""
    kept = [(parameter, parameter.data) for parameter in parameters]
    try:
        for parameter, _ in kept:
            parameter.data = scores[parameter]
        yield
    finally:
        for parameter, data in kept:
            parameter.data = data
