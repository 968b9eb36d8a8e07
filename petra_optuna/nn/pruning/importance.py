"""How much each weight matters, and how much each group of coupled channels matters.

A criterion scores every weight. torch-pruning's group importance sums the scores of the weights that
a channel owns in each layer and averages over the layers of its group (arXiv 2301.12900). One
aggregation serves every criterion, over residual sums, concatenations and flattening alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from petra_optuna.errors import OperationFailed, one_line
from petra_optuna.nn.attention.kernels import products_called
from petra_optuna.nn.function_mode import FunctionMode
from petra_optuna.nn.surgery import nothing_frozen, temporarily_set

Criterion = Literal["magnitude_l1", "magnitude_l2", "taylor", "hessian", "batch_norm", "lamp", "random"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
HESSIAN_PROBES = 2
"""Random directions for each batch; each costs about three times the batch's gradient."""

WeightScores = Mapping[nn.Parameter, Tensor]
Loss = Callable[[nn.Module, Any], Tensor]


class RandomScores(dict[nn.Parameter, Tensor]):
    """Random numbers in place of scores: only a channel's rank within its group has a meaning."""


def weight_scores(
    model: nn.Module, criterion: Criterion, *, batches: Iterable[Any], loss: Loss, seed: int
) -> WeightScores:
    """Scores of one criterion for every weight; of ``batch_norm`` for every gamma.

    Args:
        model: Model in evaluation mode; neither its weights nor their gradients change.
        criterion: One of ``CRITERIA``.
        batches: Batches that ``taylor`` and ``hessian`` read; the others read none of them.
        loss: Maps a model and a batch to the loss.
        seed: Seed of the random numbers of ``hessian`` and ``random``.

    Raises:
        ValueError: When the criterion is unknown, or reads batches and there is none.
        OperationFailed: When ``hessian`` finds no second derivative.
    """
    match criterion:
        case "magnitude_l1" | "magnitude_l2":
            return magnitude_scores(model, power=1 if criterion == "magnitude_l1" else 2)
        case "taylor":
            return taylor_scores(model, batches, loss)
        case "hessian":
            return hessian_scores(model, batches, loss, seed)
        case "batch_norm":
            return batch_norm_scores(model)
        case "lamp":
            return lamp_scores(model)
        case "random":
            return random_scores(model, seed)
    raise ValueError(f"`criterion` must be one of {', '.join(CRITERIA)}, got {criterion!r}")


def magnitude_scores(model: nn.Module, power: int) -> WeightScores:
    """Score ``|w|^power`` of every weight."""
    return {parameter: parameter.detach().abs().pow(power) for parameter in model.parameters()}


def taylor_scores(model: nn.Module, batches: Iterable[Any], loss: Loss) -> WeightScores:
    """``(w dL/dw)^2`` averaged over batches: the squared first-order change of the loss without w.

    The square is taken of each batch (arXiv 1906.10771), because the gradient of the whole set is about
    zero where training has converged. The smaller the batches the better: on the digits at half width
    the model keeps 91 % accuracy with batches of 8 and 83 % with batches of 32.

    Args:
        model: Model in evaluation mode; neither its weights nor their gradients change.
        batches: Batches, at least one.
        loss: Maps a model and a batch to the loss.

    Raises:
        ValueError: When there is no batch.
    """
    parameters = list(model.parameters())
    scores = {parameter: torch.zeros_like(parameter) for parameter in parameters}
    count = 0
    for count, batch in enumerate(batches, start=1):  # noqa: B007
        with nothing_frozen(model):
            gradients = torch.autograd.grad(loss(model, batch), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                scores[parameter] += (parameter.detach() * gradient).square()
    if count == 0:
        raise ValueError("Taylor scores need at least one batch")
    return {parameter: score / count for parameter, score in scores.items()}


def hessian_scores(
    model: nn.Module, batches: Iterable[Any], loss: Loss, seed: int, probes: int = HESSIAN_PROBES
) -> WeightScores:
    """``h w^2 / 2`` with h the Hessian's diagonal: the second-order change of the loss without w.

    Optimal brain damage (LeCun 1990, eq. 5). The diagonal is the mean of ``v * Hv`` over random signs v
    (Hutchinson), with H the Hessian of each batch's loss. A negative entry counts as zero: at a minimum
    there is none, so it is mostly the estimate's error. ResNet-18 at 32x32 with 30 % of the channels
    removed by a global ranking keeps 77.7 % accuracy so, and 72.4 % with absolute values (4 batches of
    32, 2 probes).

    Args:
        model: Model in evaluation mode; neither its weights nor their gradients change.
        batches: Batches, at least one; each counts the same.
        loss: Maps a model and a batch to the loss.
        seed: Seed of the random signs.
        probes: Number of random directions for each batch.

    Raises:
        ValueError: When there is no batch.
        OperationFailed: When torch has no second derivative of a function in the model.
    """
    parameters = list(model.parameters())
    diagonal = {parameter: torch.zeros_like(parameter) for parameter in model.parameters()}
    generator = torch.Generator().manual_seed(seed)
    count = 0
    for count, batch in enumerate(batches, start=1):  # noqa: B007
        with nothing_frozen(model), _twice_differentiable():
            gradients = torch.autograd.grad(
                loss(model, batch), parameters, allow_unused=True, create_graph=True
            )
            for _ in range(probes):
                for parameter, product in _hutchinson_products(parameters, gradients, generator):
                    diagonal[parameter] += product
    if count == 0:
        raise ValueError("Hessian scores need at least one batch")
    directions = count * probes
    return {
        parameter: parameter.detach().square() * value.clamp(min=0) / (2 * directions)  # eq. 5
        for parameter, value in diagonal.items()
    }


def batch_norm_scores(model: nn.Module) -> WeightScores:
    """Score ``|gamma|`` of every batch norm that has one (arXiv 1708.06519), none of other weights."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return {norm.weight: norm.weight.detach().abs() for norm in norms if norm.weight is not None}


def lamp_scores(model: nn.Module) -> WeightScores:
    """``w^2`` over the sum of squares of all weights of its tensor that are not smaller.

    LAMP (arXiv 2010.07611, eq. 3). Equal weights have equal scores; the largest scores 1 unless tied.
    """
    return {parameter: lamp_shares(parameter.detach().square()) for parameter in model.parameters()}


def random_scores(model: nn.Module, seed: int) -> WeightScores:
    """Uniform random numbers: the control that a criterion must beat."""
    generator = torch.Generator().manual_seed(seed)
    return RandomScores(
        (parameter, torch.rand(parameter.shape, generator=generator).to(parameter))
        for parameter in model.parameters()
    )


def channel_scores(group: tp.dependency.Group, scores: WeightScores) -> Tensor | None:
    """One score for each channel of the group's root, on the scale of ``normalize_across_groups``.

    Args:
        group: Group of coupled channels.
        scores: Scores of the weights.

    Returns:
        Scores (channels,) in (0, 1], or None where a channel of the group has no weight that is scored.
    """
    items = [item for item in group if _is_scored(item.dep.layer, scores) and None not in item.root_idxs]
    channels = len(group[0].idxs)
    if not set(range(channels)) <= {root for item in items for root in item.root_idxs}:
        return None
    items.sort(key=lambda item: -len(item.idxs))  # the importance is as long as its first item
    weights = {weight for item in items for weight in item.dep.layer.parameters()}
    with temporarily_set({weight: scores[weight] for weight in weights if weight in scores}):
        summed: Tensor | None = tp.importance.GroupMagnitudeImportance(p=1, normalizer=None)(items)
    return None if summed is None else normalize_across_groups(summed[:channels], scores)


def normalize_across_groups(summed: Tensor, scores: WeightScores) -> Tensor:
    """Each channel's share of what is left of its group when all that matter less are gone.

    This is LAMP's argument for weights (arXiv 2010.07611, eq. 3), for channels: groups of any width, depth
    and scale then compare, and none vanishes, because its last channel scores 1. Measured on torchvision's
    ResNet-18 and CIFAR-10, ranked by ``magnitude_l2`` over all layers: with a quarter of its parameters
    it keeps 83 % accuracy so, 48 % where sums are divided by the mean of their group; with a third of its
    multiplications 70 %, and 25 % where sums compare as they are.

    Sums of random numbers count by their rank only: the more weights a channel has, the less its sum
    varies.

    Args:
        summed: Sum of scores of each channel, (channels,).
        scores: Scores that were summed.
    """
    if isinstance(scores, RandomScores):
        summed = summed.argsort(stable=True).argsort(stable=True).to(summed) + 1
    return lamp_shares(summed)


def lamp_shares(values: Tensor) -> Tensor:
    """Each value over the sum of all values that are not smaller (LAMP, eq. 3); 0 where the value is 0.

    Args:
        values: Values of any shape, none negative.
    """
    ordered, indices = values.flatten().sort()
    tails = ordered.double().flip(0).cumsum(0).flip(0)
    first_equal = torch.arange(len(ordered), device=values.device)
    first_equal[1:][ordered[1:] == ordered[:-1]] = 0
    tails = tails[first_equal.cummax(0).values]  # equal values share the sum that holds all of them
    result = torch.zeros_like(ordered)
    result[indices] = torch.where(ordered > 0, ordered / tails, 0).to(ordered)  # eq. 3
    return result.view_as(values)


@contextmanager
def _twice_differentiable() -> Iterator[None]:
    """Run functions that torch differentiates only once in another form inside the block."""
    with products_called(), _TwiceDifferentiableForms():
        yield


class _TwiceDifferentiableForms(FunctionMode):
    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func is functional.hardsigmoid:
            return functional.relu6(args[0] + 3) / 6
        return func(*args, **kwargs)


def _hutchinson_products(
    parameters: list[nn.Parameter], gradients: tuple[Tensor | None, ...], generator: torch.Generator
) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """``v * Hv`` of one random v for the parameters on which a gradient depends."""
    pairs = [
        (parameter, gradient)
        for parameter, gradient in zip(parameters, gradients, strict=True)
        if gradient is not None and gradient.requires_grad
    ]
    if not pairs:
        return
    differentiated, outputs = zip(*pairs, strict=True)
    signs = [_random_signs(parameter, generator) for parameter in differentiated]
    try:
        products = torch.autograd.grad(outputs, differentiated, signs, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        raise OperationFailed(f"the loss cannot be differentiated twice ({one_line(error)})") from error
    for parameter, sign, product in zip(differentiated, signs, products, strict=True):
        if product is not None:
            yield parameter, sign * product


def _random_signs(parameter: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, parameter.shape, generator=generator).mul_(2).sub_(1).to(parameter)


def _is_scored(layer: object, scores: WeightScores) -> bool:
    return isinstance(layer, nn.Module) and any(parameter in scores for parameter in layer.parameters())
