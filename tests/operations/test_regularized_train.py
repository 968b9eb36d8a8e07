from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.low_rank import LowRankPair, decompose, matrix
from petra_optuna.nn.surgery import replace_module
from petra_optuna.operations import Context, RegularizedTrain, Train
from petra_optuna.operations.regularized_train import mean_penalties
from petra_optuna.pipeline import Recipe
from petra_optuna.tasks import Task


def _context(task: Task, **recipe: Any) -> Context:
    return Context(task, Recipe(**{"lr": 3e-3, **recipe}), seed=3, epochs=3)


def _with_pairs(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            model = replace_module(model, name, decompose(layer, min(8, *matrix(layer).shape)))
    return model


def _pairs(model: nn.Module) -> list[LowRankPair]:
    return [module for module in model.modules() if isinstance(module, LowRankPair)]


def test_means_are_over_layers_and_match_the_definition() -> None:
    """Two hand-made pairs, W = second @ first, with S = (6, 0.5) and (2,)."""
    first = LowRankPair(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    second = LowRankPair(nn.Linear(2, 1, bias=False), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        first.first.weight.copy_(torch.tensor([[3.0, 0.0], [0.3, 0.4]]))
        first.second.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        second.first.weight.copy_(torch.tensor([[0.0, 1.0]]))
        second.second.weight.copy_(torch.tensor([[2.0], [0.0]]))
    orthogonal, hoyer = mean_penalties([first, second])
    # V of the first has the columns (1, 0) and (0.6, 0.8): off-diagonal 0.6 twice, r = 2
    assert orthogonal.item() == pytest.approx((2 * 0.36 / 4 + 0) / 2)
    assert hoyer.item() == pytest.approx((6.5 / (36.25**0.5) + 1) / 2)


def test_gradients_reach_both_layers_of_a_pair_and_agree_with_finite_differences() -> None:
    pair = LowRankPair(nn.Linear(4, 3, bias=False), nn.Linear(3, 5, bias=False)).double()

    def penalty(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        with torch.nn.utils.stateless._reparametrize_module(pair, {"0.weight": first, "1.weight": second}):
            return torch.stack(mean_penalties([pair])).sum()

    weights = tuple(weight.detach().clone().requires_grad_() for weight in pair.parameters())
    assert torch.autograd.gradcheck(penalty, weights)


def test_pairs_are_trained_as_they_are_and_penalties_fall(tiny_task: Task) -> None:
    model = _with_pairs(tiny_task.model)
    shapes = [value.shape for value in model.state_dict().values()]
    context = _context(tiny_task, lambda_orthogonal=10.0, lambda_hoyer=1.0)
    applied = RegularizedTrain(epochs=3).apply(model, context)
    report = applied.report
    assert [value.shape for value in applied.model.state_dict().values()] == shapes
    assert report["temporary_pairs"] is False
    assert len(report["layers"]) == len(_pairs(model)) == len(_pairs(applied.model))
    plain = Train(epochs=3).apply(model, context).model
    orthogonal, hoyer = (value.item() for value in mean_penalties(_pairs(plain)))
    assert report["penalty_after"]["orthogonal"] < orthogonal
    assert report["penalty_after"]["hoyer"] < hoyer
    assert report["penalty_after"]["hoyer"] < report["penalty_before"]["hoyer"]


def test_a_model_without_pairs_keeps_its_structure_and_gets_steeper_spectra(tiny_task: Task) -> None:
    context = _context(tiny_task, lambda_orthogonal=1.0, lambda_hoyer=5.0)
    applied = RegularizedTrain(epochs=3).apply(tiny_task.model, context)
    assert applied.report["temporary_pairs"] is True
    assert repr(applied.model) == repr(tiny_task.model)
    plain = Train(epochs=3).apply(tiny_task.model, context).model

    def flatness(model: nn.Module) -> float:
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1]
        spectra = [torch.linalg.svdvals(matrix(layer)) for layer in layers]
        return sum((s.sum() / s.norm()).item() for s in spectra)

    assert flatness(applied.model) < 0.98 * flatness(plain)


def test_a_model_that_reads_a_layers_weight_is_refused() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return rows @ self.layer.weight

    loader = DataLoader(TensorDataset(torch.randn(8, 4), torch.arange(8) % 4), batch_size=4)
    task = Task.from_loaders(Reader(), loader, loader, metric="accuracy")
    with pytest.raises(OperationFailed, match="reads a part of a layer"):
        RegularizedTrain().apply(task.model, _context(task))


def test_a_model_without_layers_to_factor_is_refused(tiny_task: Task) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64))
    data = TensorDataset(torch.randn(8, 1, 8, 8), torch.arange(8))
    loader = DataLoader(data, batch_size=4)
    task = Task.from_loaders(model, loader, loader, metric="accuracy")
    with pytest.raises(OperationFailed, match="no Linear or Conv2d"):
        RegularizedTrain().apply(task.model, _context(task))
