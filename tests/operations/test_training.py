from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.loaders import apart
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.errors import TrainingDiverged
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.operations import Context, RegularizedTrain, Train
from petra_optuna.operations.training import fit
from petra_optuna.pipeline import TRAINING_FIELDS, Recipe
from petra_optuna.pipeline.recipe import REGULARIZERS
from petra_optuna.tasks import Task

BASE = Recipe(lr=3e-3)
PLAIN = dataclasses.replace(BASE, **dict.fromkeys(REGULARIZERS, False))
OTHER: dict[str, Any] = {
    "optimizer": "sgd",
    "lr": 1e-3,
    "weight_decay": 1e-1,
    "schedule": "cosine",
    "batch_size": 32,
    "distillation_weight": 0.2,
    "temperature": 2.0,
    "label_smoothing": 0.2,
    "clip_norm": 0.1,
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


@pytest.mark.parametrize("name", REGULARIZERS)
def test_every_switch_and_lambda_changes_regularised_training(tiny_task: Task, name: str) -> None:
    node = RegularizedTrain(epochs=1)
    recipes = [
        dataclasses.replace(PLAIN, **{name: on, f"lambda_{name}": weight})
        for on, weight in ((False, 0.1), (True, 0.1), (True, 10.0))
    ]
    assert {name, f"lambda_{name}"} <= set(node.recipe_fields)
    off, on, strong = (
        _state(node.apply(tiny_task.model, _context(tiny_task, recipe, data_fraction=0.5)).model)
        for recipe in recipes
    )
    assert not torch.equal(off, on)
    assert not torch.equal(on, strong)


def _check_field(task: Task, node: Train | RegularizedTrain, field: str) -> None:
    assert field in node.recipe_fields
    changed = dataclasses.replace(BASE, **{field: OTHER[field]})
    one, two = (
        _state(node.apply(task.model, _context(task, recipe, data_fraction=0.5)).model)
        for recipe in (BASE, changed)
    )
    assert not torch.equal(one, two)


OPTIMIZERS: dict[str, Callable[[Any, float], torch.optim.Optimizer]] = {
    "sgd": lambda groups, lr: torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True),
    "rmsprop": lambda groups, lr: torch.optim.RMSprop(groups, lr=lr, momentum=0.9),
    "adamw": lambda groups, lr: torch.optim.AdamW(groups, lr=lr),
}
SCHEDULES: dict[str, Callable[[torch.optim.Optimizer, int], LRScheduler]] = {
    "constant": lambda optimizer, total: LambdaLR(optimizer, lambda step: 1.0),
    "cosine": lambda optimizer, total: CosineAnnealingLR(optimizer, total),
    "one_cycle": lambda optimizer, total: OneCycleLR(
        optimizer,
        max_lr=1e-3,
        total_steps=total + 1,
        pct_start=(0.3 * total + 1) / (total + 1),
        final_div_factor=1e12,
        cycle_momentum=False,
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_is_the_loop_that_one_writes_with_torch(
    tiny_task: Task, optimizer: str, schedule: str
) -> None:
    recipe = Recipe(
        optimizer=optimizer,
        schedule=schedule,
        lr=1e-3,
        weight_decay=1e-2,
        distillation_weight=0.0,
        label_smoothing=0.1,
        clip_norm=0.5,
    )
    fitted, plain = copy.deepcopy(tiny_task.model), copy.deepcopy(tiny_task.model)
    report = fit(fitted, _context(tiny_task, recipe, epochs=2), 2, only_float32="the test compares")
    seeds = torch.randint(2**62, (2,), generator=torch.Generator().manual_seed(11)).tolist()
    weights = [weight for weight in plain.parameters() if weight.ndim > 1]
    others = [weight for weight in plain.parameters() if weight.ndim <= 1]
    groups = [{"params": weights, "weight_decay": 1e-2}, {"params": others, "weight_decay": 0.0}]
    steps = OPTIMIZERS[optimizer](groups, 1e-3)
    rates = SCHEDULES[schedule](steps, 8)
    plain.train()
    losses = []
    for seed in seeds:
        for inputs, targets in tiny_task.train.batches(64, shuffle_seed=seed):
            loss = functional.cross_entropy(forward(plain, inputs), targets, label_smoothing=0.1)
            losses.append(loss.item())
            steps.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
            steps.step()
            rates.step()
    torch.testing.assert_close(_state(fitted), _state(plain), rtol=1e-4, atol=1e-6)
    assert report["loss"] == pytest.approx([sum(losses[:4]) / 4, sum(losses[4:]) / 4], rel=1e-4)


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
    task = Task.from_loaders(tiny_task.model, nonsense, apart(nonsense), metric="accuracy")

    def agreement(weight: float) -> float:
        model = copy.deepcopy(task.model)
        nn.init.normal_(model.get_submodule("head").weight, std=0.1)  # type: ignore[arg-type]
        recipe = Recipe(lr=1e-2, distillation_weight=weight)
        fit(model, _context(task, recipe, epochs=4), 4)
        with torch.no_grad():
            return float((model(inputs[0]).argmax(1) == task.model(inputs[0]).argmax(1)).float().mean())

    assert agreement(1.0) > 0.8
    assert agreement(0.0) < 0.4


def test_without_distillation_or_without_training_the_teacher_is_not_asked(tiny_task: Task) -> None:
    class Teacher(nn.Module):
        calls = 0

        def forward(self, images: Tensor) -> Tensor:
            Teacher.calls += 1
            return torch.zeros(len(images), 4)

    task = dataclasses.replace(tiny_task, model=Teacher())
    for weight, trained, expected in ((0.0, True, 0), (0.5, True, 4), (0.5, False, 0)):
        model = copy.deepcopy(tiny_task.model)
        student_of = dataclasses.replace(task, trained=trained)
        assert student_of.samples_per_call
        Teacher.calls = 0
        report = fit(model, _context(student_of, Recipe(distillation_weight=weight)), 1)
        assert Teacher.calls == expected
        assert ("distillation_off" in report) is not trained
        assert report["distillation"] == (weight if trained else 0.0)


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


def test_distillation_and_task_loss_are_mixed_by_the_formula(tiny_task: Task) -> None:
    """One step over all data: the reported loss is that before the step."""
    inputs, targets = next(tiny_task.train.batches(256))
    loader = DataLoader(TensorDataset(*inputs, targets), batch_size=256)
    task = Task.from_loaders(tiny_task.model, loader, apart(loader), metric="accuracy")
    recipe = Recipe(batch_size=256, distillation_weight=0.3, temperature=2.0, label_smoothing=0.2)
    report = fit(copy.deepcopy(task.model), _context(task, recipe), 1, only_float32="the test compares")
    student = copy.deepcopy(task.model).train()
    with torch.no_grad():
        outputs, teacher = forward(student, inputs), forward(task.model, inputs)
        hard = functional.cross_entropy(outputs, targets, label_smoothing=0.2)
        soft, log_soft = (teacher / 2).softmax(1), (outputs / 2).log_softmax(1)
        divergence = 4 * (soft * (soft.log() - log_soft)).sum(1).mean()
    assert report["loss"] == pytest.approx([(0.7 * hard + 0.3 * divergence).item()], rel=1e-4)
    assert report["distillation"] == 0.3
    assert "label_smoothing_off" not in report


def test_label_smoothing_that_cannot_be_is_reported(tiny_task: Task) -> None:
    def own(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets)

    def step(model: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
        return own(forward(model, inputs), targets)

    cases = {
        "is not cross-entropy": dataclasses.replace(tiny_task, loss=own),
        "a training step of its own": dataclasses.replace(tiny_task, training_step=step),
    }
    for reason, task in cases.items():
        report = fit(copy.deepcopy(task.model), _context(task, Recipe(label_smoothing=0.1)), 1)
        assert reason in report["label_smoothing_off"]
        assert "label_smoothing_off" not in fit(copy.deepcopy(task.model), _context(task), 1)


def test_forward_passes_run_in_the_type_that_is_asked_for(tiny_task: Task) -> None:
    seen: list[torch.dtype] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(outputs.dtype)
        return functional.cross_entropy(outputs, targets)

    task = dataclasses.replace(tiny_task, loss=loss)
    results = {}
    for name, dtype in (("float32", None), ("bfloat16", torch.bfloat16)):
        model = copy.deepcopy(task.model)
        handle = model.get_submodule("head").register_forward_hook(lambda *given: seen.append(given[2].dtype))
        context = dataclasses.replace(_context(task, BASE, data_fraction=0.25), train_precision=name)
        report = fit(model, context, 1)
        handle.remove()
        assert report["precision"] == name
        assert seen == [dtype or torch.float32, *[torch.float32] * 2]  # the loss, and its scale
        assert {value.dtype for value in model.parameters()} == {torch.float32}
        results[name] = _state(model)
        seen.clear()
    assert not torch.equal(results["float32"], results["bfloat16"])
    report = fit(copy.deepcopy(task.model), _context(task), 1, only_float32="the test compares")
    assert report["precision"] == "float32"


def test_extra_loss_is_added_to_every_step(tiny_task: Task) -> None:
    def heads_size(model: nn.Module, *_: object) -> Tensor:
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
    task = Task.from_loaders(tiny_task.model, loader, apart(loader), metric="accuracy")
    first = _trained(task)
    torch.rand(3)
    assert torch.equal(_trained(task), first)


def test_a_divergence_is_seen_on_the_scale_of_the_targets() -> None:
    """A loss of 4 is no small one where the targets' variance is 0.0005."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(600, 8, generator=generator)
    targets = 0.01 * inputs @ torch.randn(8, 1, generator=generator)
    parts = (slice(0, 512), slice(512, 600))
    train, selection = (
        DataLoader(TensorDataset(inputs[part], targets[part]), batch_size=64) for part in parts
    )
    model = nn.Linear(8, 1)
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(inputs, targets).solution.T)
        model.bias.zero_()
    task = Task.from_loaders(model, train, selection, metric="rmse")
    recipe = Recipe(optimizer="rmsprop", lr=0.1, schedule="constant", distillation_weight=0.0)
    with pytest.raises(TrainingDiverged, match="the mean loss of epoch"):
        Train(epochs=4).apply(task.model, Context(task, recipe, seed=0, epochs=4))


def test_cross_entropy_as_a_module_is_cross_entropy(tiny_task: Task) -> None:
    recipe = dataclasses.replace(BASE, label_smoothing=0.1)
    module = dataclasses.replace(tiny_task, loss=nn.CrossEntropyLoss())
    reports = [fit(copy.deepcopy(task.model), _context(task, recipe), 1) for task in (tiny_task, module)]
    assert reports[0] == reports[1]
    assert "label_smoothing_off" not in reports[1]


def test_an_extra_loss_is_given_the_loss_of_the_task_alone(tiny_task: Task) -> None:
    """The sparsity term's sensitivities are its gradients, not those of penalties or distillation."""
    given: list[float] = []

    def extra(model: nn.Module, dtype: torch.dtype | None, of_task: Tensor) -> Tensor:
        given.append(of_task.item())
        return 100 * of_task

    plain = dataclasses.replace(BASE, distillation_weight=0.0, batch_size=256)
    mixed = dataclasses.replace(plain, distillation_weight=0.9)
    for recipe in (plain, mixed):
        fit(copy.deepcopy(tiny_task.model), _context(tiny_task, recipe), 1, extra_loss=extra)
    assert given[0] == pytest.approx(given[len(given) // 2])
