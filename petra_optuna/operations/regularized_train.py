"""Training that keeps factors orthogonal and makes spectra sparse (PETRA, eq. 4-6)."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

import torch
from optuna.distributions import IntDistribution
from torch import Tensor, nn

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.inputs import forward
from petra_optuna.nn.low_rank import LowRankPair, decompose, factors, is_decomposable, matrix, recompose
from petra_optuna.nn.penalties import hoyer_penalty, orthogonal_penalty
from petra_optuna.nn.surgery import replace_module, shared_layers
from petra_optuna.operations.context import Context
from petra_optuna.operations.training import fit
from petra_optuna.pipeline import TRAINING_FIELDS, Applied, Kind, Operation


@dataclasses.dataclass(frozen=True)
class RegularizedTrain(Operation):
    """Train with ``L + lambda_O / |D| sum L_O + lambda_H / |D| sum L_H`` over the layers D (eq. 6).

    D are the low-rank pairs of the model. A model without any is trained with every Linear and Conv2d
    as a temporary pair of full rank and recomposed afterwards, which shapes the spectra for a low-rank
    node to come.
    """

    name: ClassVar[str] = "regularized_train"
    code: ClassVar[str] = "Reg"
    kind: ClassVar[Kind] = "training"
    recipe_fields: ClassVar[tuple[str, ...]] = (*TRAINING_FIELDS, "lambda_orthogonal", "lambda_hoyer")

    epochs: Annotated[int, IntDistribution(1, 10)] = 3

    def apply(self, model: nn.Module, context: Context) -> Applied[nn.Module]:
        """Return a trained copy; the report says on which layers and what became of the penalties.

        Raises:
            OperationFailed: When the model has no pair, Linear or Conv2d, or reads the weight of a layer
                instead of calling it.
            TrainingDiverged: When a loss or a gradient is NaN or infinite.
        """
        trained = copy.deepcopy(model)
        if context.epochs <= 0:
            return Applied(trained, fit(trained, context, self.epochs))
        names = _pair_names(trained)
        temporary = not names
        if temporary:
            trained, names = _with_temporary_pairs(trained)
            _check_runs(trained, context)
        before = _floats(mean_penalties(_pairs(trained, names)))
        report = fit(trained, context, self.epochs, extra_loss=_penalty(names, context))
        after = _floats(mean_penalties(_pairs(trained, names)))
        if temporary:
            trained = _recomposed(trained, names)
        layers: dict[str, Any] = {"layers": names, "temporary_pairs": temporary}
        return Applied(trained, {**report, **layers, "penalty_before": before, "penalty_after": after})


def mean_penalties(pairs: Sequence[LowRankPair]) -> tuple[Tensor, Tensor]:
    """``(1/|D|) sum L_O`` and ``(1/|D|) sum L_H`` over the pairs D, differentiable (eq. 4-5)."""
    orthogonal, hoyer = [], []
    for pair in pairs:
        u, s, v = factors(pair)
        orthogonal.append(orthogonal_penalty(u, v))
        hoyer.append(hoyer_penalty(s))
    return torch.stack(orthogonal).mean(), torch.stack(hoyer).mean()


def _penalty(names: Sequence[str], context: Context) -> Callable[[nn.Module], Tensor]:
    """The two regulariser terms of eq. 6 as a function of the model."""
    recipe = context.recipe

    def penalty(model: nn.Module) -> Tensor:
        orthogonal, hoyer = mean_penalties(_pairs(model, names))
        return recipe.lambda_orthogonal * orthogonal + recipe.lambda_hoyer * hoyer

    return penalty


def _pair_names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, LowRankPair)]


def _pairs(model: nn.Module, names: Sequence[str]) -> list[LowRankPair]:
    modules = (model.get_submodule(name) for name in names)
    return [module for module in modules if isinstance(module, LowRankPair)]


def _with_temporary_pairs(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """The model with each decomposable layer as a pair of full rank, and the names of the pairs."""
    shared = shared_layers(model)
    layers = {
        name: module
        for name, module in model.named_modules()
        if name not in shared and is_decomposable(module)
    }
    if not layers:
        raise OperationFailed("regularized_train: the model has no Linear or Conv2d layer of its own weight")
    for name, layer in layers.items():
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        model = replace_module(model, name, decompose(layer, min(matrix(layer).shape)))
    return model, list(layers)


def _check_runs(model: nn.Module, context: Context) -> None:
    try:
        with torch.no_grad():
            forward(model, context.task.example)
    except AttributeError as error:
        raise OperationFailed(
            f"regularized_train: the model reads a part of a layer that was made a pair ({error})"
        ) from error


def _recomposed(model: nn.Module, names: Sequence[str]) -> nn.Module:
    for name, pair in zip(names, _pairs(model, names), strict=True):
        model = replace_module(model, name, recompose(pair))
    return model


def _floats(penalties: tuple[Tensor, Tensor]) -> dict[str, float]:
    orthogonal, hoyer = penalties
    return {"orthogonal": orthogonal.item(), "hoyer": hoyer.item()}
