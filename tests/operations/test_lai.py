from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.loaders import apart
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.training import lai_scale, mean_absolute_error, mean_squared_error
from petra_optuna.operations import Context
from petra_optuna.operations.lai import lai_loss, mean_scale, residuals, why_no_lai
from petra_optuna.pipeline import Recipe
from petra_optuna.tasks import Task


def _task(model: nn.Module, inputs: tuple[Tensor, ...], targets: Tensor, **changes: Any) -> Task:
    loader = DataLoader(TensorDataset(*inputs, targets), batch_size=8)
    return Task.from_loaders(model, loader, apart(loader), **{"metric": "rmse", **changes})


def _context(task: Task, bound: float = 0.5) -> Context:
    return Context(task, Recipe(lai=True, lambda_lai=bound), seed=0, epochs=1)


@pytest.mark.parametrize("bound", [0.1, 0.5, 3.0])
@pytest.mark.parametrize("loss", [functional.mse_loss, functional.l1_loss, mean_squared_error])
def test_a_line_is_as_steep_as_its_weights_are_long(loss: Any, bound: float) -> None:
    model = nn.Linear(3, 1).double()
    inputs, targets = torch.randn(16, 3, dtype=torch.float64), torch.randn(16, 1, dtype=torch.float64)
    outputs, value = lai_loss(lambda given: forward(model, given), loss, (inputs,), targets, bound)
    scale = lai_scale(model.weight.norm(), bound)
    expected = loss(outputs, targets) * (scale if loss is functional.l1_loss else scale**2)
    torch.testing.assert_close(value, expected)
    assert torch.equal(outputs, model(inputs))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3)])
def test_residuals_of_cross_entropy_have_the_loss_as_their_mean(
    shape: tuple[int, ...], smoothing: float
) -> None:
    outputs, targets = torch.randn(shape), torch.randint(4, (shape[0], *shape[2:]))
    found, power = residuals(functional.cross_entropy, outputs, targets, smoothing)
    assert (found.shape, power) == ((6,), 1)
    expected = functional.cross_entropy(outputs, targets, label_smoothing=smoothing)
    torch.testing.assert_close(found.mean(), expected)


@pytest.mark.parametrize(("loss", "power"), [(mean_squared_error, 2), (mean_absolute_error, 1)])
def test_residuals_are_in_the_unit_of_the_loss(loss: Callable[..., Tensor], power: int) -> None:
    outputs, targets = torch.randn(6, 1) * 70 + 300, torch.randn(6) * 70 + 300
    scaled = functools.partial(loss, scale=70.0)
    residual, found = residuals(scaled, outputs, targets)
    assert found == power
    torch.testing.assert_close((residual**power).mean(), scaled(outputs, targets))


def test_residuals_of_squares_have_the_loss_as_their_mean_of_squares() -> None:
    outputs, targets = torch.randn(6, 2), torch.randn(6, 2)
    found, power = residuals(functional.mse_loss, outputs, targets)
    torch.testing.assert_close((found**power).mean(), functional.mse_loss(outputs, targets))


def test_a_residual_of_zero_has_finite_gradients() -> None:
    model = nn.Linear(2, 1)
    inputs = torch.randn(4, 2)
    targets = model(inputs).detach()
    _, value = lai_loss(lambda given: forward(model, given), functional.mse_loss, (inputs,), targets, 0.5)
    value.backward()
    assert all(
        torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None
    )


def test_the_reported_scale_is_the_mean_over_the_batch() -> None:
    model, inputs, targets = nn.Linear(3, 1), torch.randn(8, 3), torch.randn(8)
    context = _context(_task(model, (inputs,), targets), bound=0.1)
    expected = lai_scale(model.weight.norm(), 0.1).item()
    assert mean_scale(model, context, (inputs,), targets) == pytest.approx(expected)
    assert model.weight.grad is None


def test_a_model_that_can_is_left_as_it_is(tiny_task: Task) -> None:
    before = copy.deepcopy(tiny_task.model.state_dict())
    assert why_no_lai(tiny_task.model, _context(tiny_task)) is None
    assert all(torch.equal(value, before[name]) for name, value in tiny_task.model.state_dict().items())
    assert not tiny_task.model.training


def test_what_stands_against_it_is_said(tiny_task: Task) -> None:
    def step(model: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
        return forward(model, inputs).square().mean()

    def own(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean()

    class Detached(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input.detach())

    inputs, targets = torch.randn(8, 3), torch.randn(8, 1)
    tokens = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 1))
    cases = {
        "a training step of its own": _task(nn.Linear(3, 1), (inputs,), targets, training_step=step),
        "no input is of floating-point numbers": _task(tokens, (torch.randint(5, (8, 2)),), targets),
        "the task's loss is not": _task(nn.Linear(3, 1), (inputs,), targets, loss=own),
        "have been used in the graph": _task(Detached(3, 1), (inputs,), targets),
    }
    for reason, task in cases.items():
        found = why_no_lai(task.model, _context(task))
        assert found is not None
        assert reason in found
