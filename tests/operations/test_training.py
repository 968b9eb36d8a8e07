from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.errors import TrainingDiverged
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.operations import Context, RegularizedTrain, Train
from petra_optuna.operations.training import fit
from petra_optuna.pipeline import TRAINING_FIELDS, Recipe
from petra_optuna.tasks import Task

BASE = Recipe(lr=3e-3)
OTHER: dict[str, Any] = {
    "optimizer": "sgd",
    "lr": 1e-3,
    "weight_decay": 1e-1,
    "schedule": "cosine",
    "batch_size": 32,
    "distillation_weight": 0.2,
    "temperature": 2.0,
    "lambda_orthogonal": 10.0,
    "lambda_hoyer": 10.0,
}


def _context(task: Task, recipe: Recipe = BASE, **changes: Any) -> Context:
    return Context(**{"task": task, "recipe": recipe, "seed": 11, "epochs": 1, **changes})


def _trained(task: Task, recipe: Recipe = BASE, **changes: Any) -> Tensor:
    """All weights and buffers after one epoch."""
    model = copy.deepcopy(task.model)
    fit(model, _context(task, recipe, **changes), 1)
    return _state(model)


def _state(model: nn.Module) -> Tensor:
    return torch.cat([value.detach().double().flatten() for value in model.state_dict().values()])


def test_the_same_seed_gives_the_same_weights_bit_for_bit(tiny_task: Task) -> None:
    torch.manual_seed(1)
    first = _trained(tiny_task)
    torch.manual_seed(2)
    assert torch.equal(_trained(tiny_task), first)
    assert not torch.equal(_trained(tiny_task, seed=12), first)
    assert not torch.equal(_trained(tiny_task, data_fraction=0.5), first)


@pytest.mark.parametrize("field", TRAINING_FIELDS)
@pytest.mark.parametrize("node", [Train(epochs=1), RegularizedTrain(epochs=1)])
def test_every_field_of_the_recipe_changes_the_result(
    tiny_task: Task, node: Train | RegularizedTrain, field: str
) -> None:
    _check_field(tiny_task, node, field)


@pytest.mark.parametrize("field", ["lambda_orthogonal", "lambda_hoyer"])
def test_both_lambdas_change_regularised_training(tiny_task: Task, field: str) -> None:
    _check_field(tiny_task, RegularizedTrain(epochs=1), field)


def _check_field(task: Task, node: Train | RegularizedTrain, field: str) -> None:
    assert field in node.recipe_fields
    changed = dataclasses.replace(BASE, **{field: OTHER[field]})
    one, two = (
        _state(node.apply(task.model, _context(task, recipe, data_fraction=0.5)).model)
        for recipe in (BASE, changed)
    )
    assert not torch.equal(one, two)


def test_the_three_optimisers_and_schedules_are_all_different(tiny_task: Task) -> None:
    recipes = [dataclasses.replace(BASE, optimizer=name) for name in ("adamw", "sgd", "rmsprop")]
    recipes += [dataclasses.replace(BASE, schedule=name) for name in ("cosine", "constant")]
    results = [_trained(tiny_task, recipe) for recipe in recipes]
    for index, one in enumerate(results):
        assert all(not torch.equal(one, other) for other in results[:index])


def test_training_from_scratch_learns_the_task(tiny_task: Task) -> None:
    model = copy.deepcopy(tiny_task.model)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()

    def quality() -> float:
        return tiny_task.evaluate(lambda inputs: forward(model, inputs).detach().numpy(), tiny_task.selection)

    before = quality()
    report = fit(model, _context(tiny_task, Recipe(lr=1e-2), epochs=5), 5)
    assert quality() > before + 0.3
    assert report["loss"][-1] < 0.7 * report["loss"][0]
    assert not model.training


@pytest.mark.parametrize("node", [Train(epochs=1), RegularizedTrain(epochs=1)])
def test_neither_the_original_nor_the_input_changes(tiny_task: Task, node: Train) -> None:
    original, given = _state(tiny_task.model), copy.deepcopy(tiny_task.model)
    applied = node.apply(given, _context(tiny_task))
    assert torch.equal(_state(tiny_task.model), original)
    assert torch.equal(_state(given), original)
    assert applied.model is not given
    assert not torch.equal(_state(applied.model), original)
    assert applied.report["changed"] is True
    assert all(parameter.grad is None for parameter in tiny_task.model.parameters())


def test_epochs_are_capped_by_the_budget_and_reported(tiny_task: Task) -> None:
    applied = Train(epochs=5).apply(tiny_task.model, _context(tiny_task, epochs=2))
    assert applied.report["epochs"] == 2
    assert len(applied.report["loss"]) == 2
    assert Train(epochs=1).apply(tiny_task.model, _context(tiny_task, epochs=2)).report["epochs"] == 1


@pytest.mark.parametrize("node", [Train(), RegularizedTrain()])
def test_a_spent_budget_changes_nothing_and_says_so(tiny_task: Task, node: Train) -> None:
    applied = node.apply(tiny_task.model, _context(tiny_task, epochs=0))
    assert applied.report == {"changed": False, "reason": "the budget of epochs is spent", "epochs": 0}
    assert applied.model is not tiny_task.model
    assert torch.equal(_state(applied.model), _state(tiny_task.model))


def test_a_loss_that_is_no_number_fails_the_trial(tiny_task: Task) -> None:
    broken = dataclasses.replace(tiny_task, loss=lambda outputs, targets: outputs.sum() * float("nan"))
    with pytest.raises(TrainingDiverged, match="the loss is nan in epoch 1, step 1"):
        Train(epochs=1).apply(broken.model, _context(broken))


def test_full_distillation_pulls_the_student_to_the_teacher_and_not_to_the_labels(tiny_task: Task) -> None:
    """Labels are shuffled to nonsense; only the teacher can be learned from."""
    inputs, targets = next(tiny_task.train.batches(256))
    assert isinstance(inputs, tuple)
    nonsense = DataLoader(TensorDataset(inputs[0], (targets + 1) % 4), batch_size=64)
    task = Task.from_loaders(tiny_task.model, nonsense, nonsense, metric="accuracy")

    def agreement(weight: float) -> float:
        model = copy.deepcopy(task.model)
        nn.init.normal_(model.get_submodule("head").weight, std=0.1)  # type: ignore[arg-type]
        recipe = Recipe(lr=1e-2, distillation_weight=weight)
        fit(model, _context(task, recipe, epochs=4), 4)
        with torch.no_grad():
            return float((model(inputs[0]).argmax(1) == task.model(inputs[0]).argmax(1)).float().mean())

    assert agreement(1.0) > 0.8
    assert agreement(0.0) < 0.4


def test_without_distillation_the_teacher_is_not_asked(tiny_task: Task) -> None:
    class Teacher(nn.Module):
        calls = 0

        def forward(self, images: Tensor) -> Tensor:
            Teacher.calls += 1
            return torch.zeros(len(images), 4)

    task = dataclasses.replace(tiny_task, model=Teacher())
    for weight, expected in ((0.0, 0), (0.5, 4)):
        Teacher.calls = 0
        model = copy.deepcopy(tiny_task.model)
        fit(model, _context(task, Recipe(distillation_weight=weight)), 1)
        assert Teacher.calls == expected


def test_an_own_training_step_replaces_loss_and_distillation(tiny_task: Task) -> None:
    seen = []

    def step(model: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
        seen.append(model.training)
        return forward(model, inputs).square().mean()

    task = dataclasses.replace(tiny_task, training_step=step)
    model = copy.deepcopy(task.model)
    report = fit(model, _context(task, Recipe(lr=1e-2), epochs=3), 3)
    assert seen == [True] * 12
    assert report["loss"][-1] < report["loss"][0]
    assert report["distillation"] == 0.0
    assert "training step of its own" in report["distillation_off"]


@pytest.mark.parametrize(("fraction", "expected"), [(0.25, 64), (0.5, 128), (1.0, 256)])
def test_an_epoch_reads_the_fraction_of_the_budget(tiny_task: Task, fraction: float, expected: int) -> None:
    read = []

    def step(model: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
        read.append(len(targets))
        return forward(model, inputs).square().mean()

    task = dataclasses.replace(tiny_task, training_step=step)
    fit(copy.deepcopy(task.model), _context(task, data_fraction=fraction), 1)
    assert sum(read) == expected


def test_extra_loss_is_added_to_every_step(tiny_task: Task) -> None:
    def heads_size(model: nn.Module) -> Tensor:
        weight = model.get_submodule("head").weight
        assert isinstance(weight, Tensor)
        return 10 * weight.square().sum()

    plain, shrunk = copy.deepcopy(tiny_task.model), copy.deepcopy(tiny_task.model)
    fit(plain, _context(tiny_task), 1)
    fit(shrunk, _context(tiny_task), 1, extra_loss=heads_size)
    assert heads_size(shrunk) < 0.98 * heads_size(plain)


def test_random_transforms_of_the_users_own_follow_from_the_seed(tiny_task: Task) -> None:
    class Noisy(TensorDataset):
        def __getitem__(self, index: int) -> tuple[Tensor, ...]:
            image, target = super().__getitem__(index)
            return image + torch.randn_like(image), target

    inputs, targets = next(tiny_task.train.batches(64))
    assert isinstance(inputs, tuple)
    loader = DataLoader(Noisy(inputs[0], targets), batch_size=8)
    task = Task.from_loaders(tiny_task.model, loader, loader, metric="accuracy")
    first = _trained(task)
    torch.rand(3)
    assert torch.equal(_trained(task), first)
