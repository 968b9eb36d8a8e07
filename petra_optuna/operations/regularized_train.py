"""Training with up to five regularisers, each with its own weight or off (PETRA, eq. 4-6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.attention import close_unchanged, open_attention
from petra_optuna.nn.copying import private_copy
from petra_optuna.nn.low_rank import (
    LowRankPair,
    factorize_fully,
    merge_factors,
    substitute,
    trainable_factors,
    weight_matrix,
)
from petra_optuna.nn.training import (
    mean_hoyer,
    mean_orthogonal,
    norm_penalty,
    sparsity_penalty,
    trainable_matrices,
)
from petra_optuna.operations.context import Context
from petra_optuna.operations.lai import mean_scale, why_no_lai
from petra_optuna.operations.training import ExtraLoss, fit, plain_loss
from petra_optuna.pipeline import Applied, Recipe
from petra_optuna.pipeline.nodes import RegularizedTrainNode
from petra_optuna.pipeline.recipe import REGULARIZERS

OF_FACTORS = ("orthogonal", "hoyer")
SAMPLES = 64
"""Calibration samples on which the report looks at terms that need data."""


@dataclasses.dataclass(frozen=True)
class RegularizedTrain(RegularizedTrainNode):
    """Train with ``L + sum of lambda_i L_i`` over the regularisers that the recipe switches on.

    ``orthogonal`` and ``hoyer`` (eq. 6) act on the low-rank factors of the model. A model without any is
    trained with every layer that can be factored as temporary factors of full rank and merged
    afterwards, which shapes the spectra for a low-rank node to come. ``norm`` acts on the rows of Linear
    and convolution weights, ``sparsity`` on every matrix and kernel that is trained, factors where there
    are factors, and ``lai`` scales the residuals of the task's loss; these three make no factors.

    Example:
        >>> Pipeline((RegularizedTrain(epochs=2),), Recipe(orthogonal=True, hoyer=False)).notation
        'Reg'
    """

    def apply(self, model: nn.Module, context: Context) -> Applied[nn.Module]:
        """Return a trained copy; the report says which terms acted and what became of each.

        ``regularizers`` names the terms that were on, ``regularizers_off`` those that the recipe asked for
        in vain, with reasons; ``penalty_before`` and ``penalty_after`` have the value of each term without
        its lambda, that of ``lai`` being the mean scale of the residuals. ``left_out`` has the layers that
        got no temporary factors because the model relies on them otherwise than by calling them.

        Raises:
            OperationFailed: When none of the terms that are asked for can act on this model and task.
            TrainingDiverged: When a loss or a gradient is NaN or infinite, or the loss diverges.
        """
        trained = private_copy(model)
        if context.epochs <= 0:
            return Applied(trained, fit(trained, context, self.epochs))
        asked = [name for name in REGULARIZERS if getattr(context.recipe, name)]
        trained, temporary = _with_factors(trained, asked, context)
        off = _impossible(trained, asked, context)
        terms = [name for name in asked if name not in off]
        if asked and not terms:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in off.items())
            raise OperationFailed(f"regularized_train: no term that is asked for can act ({reasons})")
        before = _penalties(trained, terms, context)
        report = fit(
            trained,
            context,
            self.epochs,
            extra_loss=_extra_loss(terms, context.recipe),
            lai_bound=context.recipe.lambda_lai if "lai" in terms else None,
            snapshot=lambda model: temporary.removed_from(private_copy(model)),
        )
        after = _penalties(trained, terms, context)
        layers = list(trainable_factors(trained)) if _any_of_factors(terms) else []
        report |= _report(terms, off, layers, bool(temporary.factored), before, after)
        return Applied(temporary.removed_from(trained), {**report, "left_out": temporary.left_out})


def _report(
    terms: list[str],
    off: dict[str, str],
    layers: list[str],
    temporary: bool,
    before: dict[str, float],
    after: dict[str, float],
) -> dict[str, Any]:
    report: dict[str, Any] = {"regularizers": terms, "regularizers_off": off}
    if not terms:
        return {
            **report,
            "no_regularizer": "the recipe has every regulariser off, so this trained as train does",
        }
    values = {"penalty_before": before, "penalty_after": after}
    return {**report, "layers": layers, "temporary_pairs": temporary, **values}


def _any_of_factors(terms: Collection[str]) -> bool:
    return any(name in terms for name in OF_FACTORS)


@dataclasses.dataclass(frozen=True)
class _Temporary:
    """What a model has for the time of its training.

    Attributes:
        factored: Names of layers that are factored.
        opened: Attention modules that are replaced by layered ones, by name.
        left_out: Reasons why other layers are not factored, by name.
    """

    factored: tuple[str, ...] = ()
    opened: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def removed_from(self, model: nn.Module) -> nn.Module:
        """The model, or a copy of it, with its own layers again, in place."""
        opened = {name: private_copy(module) for name, module in self.opened.items()}
        return close_unchanged(merge_factors(model, self.factored), opened)


def _with_factors(model: nn.Module, asked: Collection[str], context: Context) -> tuple[nn.Module, _Temporary]:
    """The model with temporary pairs where a term needs factors and there are none."""
    if not _any_of_factors(asked) or trainable_factors(model):
        return model, _Temporary()
    model, opened = open_attention(model)
    full, names = factorize_fully(private_copy(model))
    factored = {name: full.get_submodule(name) for name in names}
    placed = substitute(model.eval(), factored, context.calibration_sample())
    return placed.model, _Temporary(placed.placed, opened, placed.left_out)


def _impossible(model: nn.Module, asked: Collection[str], context: Context) -> dict[str, str]:
    """Terms that are asked for and cannot act, with reasons."""
    off: dict[str, str] = {}
    if not trainable_factors(model):
        for name in OF_FACTORS:
            if name in asked:
                off[name] = "the model has no trained layer of its own weight that can be factored"
    if "lai" in asked:
        reason = why_no_lai(model, context)
        if reason is not None:
            off["lai"] = reason
    if "norm" in asked and not _layer_weights(model):
        off["norm"] = "the model has no Linear or convolution layer that is trained"
    return off


def _extra_loss(terms: Collection[str], recipe: Recipe) -> ExtraLoss | None:
    """The terms that are added to the loss, with their lambdas; None where there are none."""
    if not {"orthogonal", "hoyer", "norm", "sparsity"} & set(terms):
        return None

    def extra(model: nn.Module, dtype: torch.dtype | None, of_task: Tensor) -> Tensor:
        values = []
        pairs = list(trainable_factors(model).values()) if _any_of_factors(terms) else []
        if "orthogonal" in terms:
            values.append(recipe.lambda_orthogonal * mean_orthogonal(pairs, dtype))
        if "hoyer" in terms:
            values.append(recipe.lambda_hoyer * mean_hoyer(pairs))
        if "norm" in terms:
            values.append(recipe.lambda_norm * norm_penalty(_layer_weights(model)))
        if "sparsity" in terms:
            values.append(recipe.lambda_sparsity * _sparsity(model, of_task))
        return torch.stack(values).sum()

    return extra


def _sparsity(model: nn.Module, of_task: Tensor) -> Tensor:
    """The sparsity penalty; its sensitivities, the gradient of the task's loss, cost a backward pass."""
    weights = trainable_matrices(model)
    gradients = torch.autograd.grad(
        of_task, weights, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return sparsity_penalty(weights, gradients)


def _penalties(model: nn.Module, terms: Collection[str], context: Context) -> dict[str, float]:
    """The value of each term without its lambda."""
    values: dict[str, float] = {}
    pairs = list(trainable_factors(model).values()) if _any_of_factors(terms) else []
    if "orthogonal" in terms:
        values["orthogonal"] = mean_orthogonal(pairs).item()
    if "hoyer" in terms:
        values["hoyer"] = mean_hoyer(pairs).item()
    if "norm" in terms:
        values["norm"] = norm_penalty(_layer_weights(model)).item()
    if "lai" in terms or "sparsity" in terms:
        inputs, targets = next(context.calibration_batches(SAMPLES, SAMPLES))
        if "lai" in terms:
            values["lai"] = mean_scale(model, context, inputs, targets)
        if "sparsity" in terms:
            values["sparsity"] = _sparsity(model, plain_loss(model, (inputs, targets), context)).item()
    return values


def _layer_weights(model: nn.Module) -> list[Tensor]:
    """The trained weights of Linear, convolution and attention layers; a pair is the layer it stands for."""
    kinds = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    weights: list[Tensor] = []
    inside_pairs: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, LowRankPair):
            inside_pairs |= {module.first, module.second}
            known = isinstance(module.second, kinds) and not isinstance(module.first, nn.Embedding)
            if known and module.first.weight.requires_grad:
                weights.append(weight_matrix(module).reshape(len(module.second.weight), -1))
        elif isinstance(module, kinds) and module not in inside_pairs and module.weight.requires_grad:
            weights.append(module.weight)
        elif isinstance(module, nn.MultiheadAttention):
            projections = (getattr(module, f"{part}_proj_weight") for part in ("in", "q", "k", "v"))
            weights += [weight for weight in projections if weight is not None and weight.requires_grad]
    return weights
