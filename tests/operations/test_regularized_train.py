from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from support.loaders import apart
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.low_rank import LowRankPair, decompose, trainable_factors, weight_matrix
from petra_optuna.nn.randomness import seeded
from petra_optuna.nn.surgery import replace_module
from petra_optuna.nn.training import input_steepness, mean_hoyer, mean_orthogonal, mean_squared_error
from petra_optuna.operations import Context, RegularizedTrain, Train
from petra_optuna.pipeline import Recipe
from petra_optuna.pipeline.recipe import REGULARIZERS
from petra_optuna.tasks import Split, Task
from petra_optuna.tasks.metrics import metric


def _context(task: Task, **recipe: Any) -> Context:
    return Context(task, Recipe(**{"lr": 3e-3, **recipe}), seed=3, epochs=3)


def _with_pairs(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            model = replace_module(model, name, decompose(layer, min(8, *weight_matrix(layer).shape)))
    return model


def _pairs(model: nn.Module) -> list[LowRankPair]:
    return [module for module in model.modules() if isinstance(module, LowRankPair)]


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
    factors = trainable_factors(plain).values()
    orthogonal, hoyer = mean_orthogonal(factors).item(), mean_hoyer(factors).item()
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
        spectra = [torch.linalg.svdvals(weight_matrix(layer)) for layer in layers]
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
    task = Task.from_loaders(Reader(), loader, apart(loader), metric="accuracy")
    with pytest.raises(OperationFailed, match="reads a part of a layer"):
        RegularizedTrain().apply(task.model, _context(task))


def test_a_model_on_which_no_term_can_act_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64))
    data = TensorDataset(torch.randn(8, 1, 8, 8), torch.arange(8))
    loader = DataLoader(data, batch_size=4)
    task = Task.from_loaders(model, loader, apart(loader), metric="accuracy")
    with pytest.raises(
        OperationFailed, match=r"no term that is asked for can act \(orthogonal: the model has no"
    ):
        RegularizedTrain().apply(task.model, _context(task))
    report = RegularizedTrain(epochs=1).apply(task.model, _context(task, norm=True, lai=True)).report
    assert report["regularizers"] == ["lai"]
    assert set(report["regularizers_off"]) == {"orthogonal", "hoyer", "norm"}


def _only(*names: str, **values: Any) -> dict[str, Any]:
    return {**{name: name in names for name in REGULARIZERS}, **values}


def test_with_all_terms_off_it_trains_and_says_so(tiny_task: Task) -> None:
    context = _context(tiny_task, **_only())
    applied = RegularizedTrain(epochs=1).apply(tiny_task.model, context)
    assert applied.report["changed"] is True
    assert applied.report["regularizers"] == []
    assert "trained as train does" in applied.report["no_regularizer"]
    plain = Train(epochs=1).apply(tiny_task.model, context).model.state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in applied.model.state_dict().items())


@pytest.mark.parametrize("name", ["norm", "sparsity"])
def test_terms_that_need_no_factors_make_none_and_lower_their_value(tiny_task: Task, name: str) -> None:
    recipe = _only(name, **{f"lambda_{name}": 1.0}, distillation_weight=0.0)
    report = RegularizedTrain(epochs=3).apply(tiny_task.model, _context(tiny_task, **recipe)).report
    assert (report["regularizers"], report["layers"], report["temporary_pairs"]) == ([name], [], False)
    assert report["penalty_before"].keys() == report["penalty_after"].keys() == {name}
    assert report["penalty_after"][name] < 0.97 * report["penalty_before"][name]


@pytest.mark.parametrize("bound", [0.1, 0.3])
def test_lai_brings_a_regression_to_the_steepness_that_it_is_given(bound: float) -> None:
    """Noise invites steep models: plain training ends at a multiple of both bounds."""
    generator = torch.Generator().manual_seed(0)
    points = 2 * torch.rand(128, 2, generator=generator) - 1
    values = (3 * points[:, :1]).sin() + 0.5 * torch.randn(128, 1, generator=generator)
    with seeded(0):
        model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    loader = DataLoader(TensorDataset(points, values), batch_size=32)
    task = Task.from_loaders(model, loader, apart(loader), metric="rmse")

    def steepness(**recipe: Any) -> float:
        context = Context(task, Recipe(lr=1e-2, batch_size=32, distillation_weight=0.0, **recipe), 3, 10)
        trained = RegularizedTrain(epochs=10).apply(model, context).model
        watched = points.clone().requires_grad_()
        return input_steepness(trained(watched).flatten(), [watched]).mean().item()

    assert 0.7 * bound < steepness(**_only("lai", lambda_lai=bound)) < 1.3 * bound
    assert steepness(**_only()) > 2.5 * bound


def test_terms_that_the_task_rules_out_are_named(tiny_task: Task) -> None:
    def step(model: nn.Module, inputs: Inputs, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(forward(model, inputs), targets)

    task = dataclasses.replace(tiny_task, training_step=step)
    recipe = _only("lai", "sparsity")
    report = RegularizedTrain(epochs=1).apply(task.model, _context(task, **recipe)).report
    assert report["regularizers"] == ["sparsity"]
    assert report["regularizers_off"] == {"lai": "the task has a training step of its own"}


def test_the_whole_gradient_is_that_of_the_formula() -> None:
    """One step of gradient descent in float64 on a pair and a layer, against the terms written out."""
    torch.manual_seed(0)
    pair = LowRankPair(nn.Linear(4, 2, bias=False), nn.Linear(2, 3))
    model = nn.Sequential(pair, nn.Tanh(), nn.Linear(3, 1)).double()
    inputs, targets = torch.randn(32, 4).double(), torch.randn(32, 1).double()
    split = Split(TensorDataset(inputs, targets))
    task = Task("double", model, split, split, split, None, metric("rmse"), mean_squared_error)
    lambdas = {"orthogonal": 0.3, "hoyer": 0.2, "lai": 0.5, "norm": 0.05, "sparsity": 0.01}
    recipe = Recipe(
        optimizer="sgd",
        lr=1e-3,
        weight_decay=1e-6,
        schedule="constant",
        batch_size=32,
        distillation_weight=0.0,
        clip_norm=10.0,
        **_only(*REGULARIZERS, **{f"lambda_{name}": value for name, value in lambdas.items()}),
    )
    applied = RegularizedTrain(epochs=1).apply(model, Context(task, recipe, 3, 1, train_precision="float32"))
    assert applied.report["regularizers"] == list(REGULARIZERS)

    first, second, last = model[0][0].weight, model[0][1].weight, model[2].weight
    x = inputs.clone().requires_grad_()
    residual = (model(x) - targets).abs().flatten()
    (slopes,) = torch.autograd.grad(residual.sum(), x, create_graph=True)
    k = slopes.square().sum(1).sqrt()
    scale = torch.maximum(k / 0.5, torch.ones_like(k)) / (1 + k.square()).sqrt()
    loss = (scale * residual).square().mean()
    of_task = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    u, v = second / second.norm(dim=0), first.T / first.norm(dim=1)
    s = first.norm(dim=1) * second.norm(dim=0)
    eye = torch.eye(2).double()
    loss = loss + 0.3 * ((u.T @ u - eye).square().sum() + (v.T @ v - eye).square().sum()) / 4
    loss = loss + 0.2 * s.sum() / s.square().sum().sqrt()
    rows = ((1 - (second @ first).norm(dim=1)).square().sum(), (1 - last.norm(dim=1)).square().sum())
    loss = loss + 0.05 * (rows[0] + rows[1]) / 2
    names = [name for name, _ in model.named_parameters()]
    sensitivities = dict(zip(names, of_task, strict=True))
    gradients = dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    after = dict(applied.model.named_parameters())
    for name, weight in model.named_parameters():
        gradient = gradients[name]
        if weight.ndim > 1:
            gradient = gradient + (0.02 * (-sensitivities[name].abs()).exp() + 1e-6) * weight
        # Nesterov's first step is 1 + momentum times the gradient.
        torch.testing.assert_close(weight - after[name], 1.9e-3 * gradient, rtol=1e-6, atol=1e-10)
    assert sum(gradient.square().sum() for gradient in gradients.values()) < 10.0**2
