from __future__ import annotations

import copy

import pytest
import torch
from support.loaders import apart
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.counting import count_parameters
from petra_optuna.nn.inputs import forward
from petra_optuna.operations import Context, LowRank, Prune, QuantizeAware, QuantizeStatic, Train
from petra_optuna.pipeline import Pipeline, Recipe
from petra_optuna.tasks import Task


def context_of(task: Task, epochs: int = 1) -> Context:
    return Context(task, Recipe(batch_size=32, lr=3e-3), seed=0, epochs=epochs)


def test_the_result_is_plain_trained_and_not_what_plain_training_gives(tiny_task: Task) -> None:
    model, context = tiny_task.model, context_of(tiny_task)
    structure, state = repr(model), copy.deepcopy(model.state_dict())
    applied = QuantizeAware(epochs=1).apply(model, context)
    assert repr(applied.model) == structure
    assert list(applied.model.state_dict()) == list(state)
    assert not any(module.training for module in applied.model.modules())
    assert not any(module._forward_pre_hooks for module in applied.model.modules())
    trained = Train(epochs=1).apply(model, context).model.state_dict()
    for name, value in applied.model.named_parameters():
        assert not torch.equal(value, state[name])
        assert not torch.equal(value, trained[name])
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert repr(model) == structure


def test_the_report_names_every_layer_and_the_epochs_spent(tiny_task: Task) -> None:
    report = QuantizeAware(epochs=2).apply(tiny_task.model, context_of(tiny_task)).report
    layers = [n for n, m in tiny_task.model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert report["layers"] == layers
    assert report["epochs"] == 1
    assert report["changed"] is True


def test_it_is_the_same_each_time_and_epochs_change_it(tiny_task: Task) -> None:
    def weights(node: QuantizeAware) -> Tensor:
        model = node.apply(tiny_task.model, context_of(tiny_task, epochs=2)).model
        return torch.cat([value.flatten() for value in model.state_dict().values()])

    once = weights(QuantizeAware(epochs=1))
    assert torch.equal(once, weights(QuantizeAware(epochs=1)))
    assert not torch.equal(once, weights(QuantizeAware(epochs=2)))


def test_without_a_budget_it_says_so_and_keeps_the_weights(tiny_task: Task) -> None:
    applied = QuantizeAware().apply(tiny_task.model, context_of(tiny_task, epochs=0))
    assert applied.report["changed"] is False
    assert applied.report["reason"]
    state = tiny_task.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in applied.model.state_dict().items())
    assert applied.model is not tiny_task.model


def test_prune_and_low_rank_follow(tiny_task: Task) -> None:
    model, sizes = tiny_task.model, []
    for node in (
        QuantizeAware(epochs=1),
        Prune(removed=0.4, criterion="taylor"),
        LowRank(rule="share", kept_weights=0.5),
    ):
        model = node.apply(model, context_of(tiny_task)).model
        sizes.append(count_parameters(model))
    assert sizes[0] > sizes[1] > sizes[2]
    again = QuantizeAware(epochs=1).apply(model, context_of(tiny_task))
    assert any("." in name and name.endswith(("0", "1")) for name in again.report["layers"])
    assert forward(again.model, tiny_task.example).isfinite().all()


def test_it_implies_static_quantisation() -> None:
    pipeline = Pipeline((QuantizeAware(),)).canonical()
    assert isinstance(pipeline.conversion, QuantizeStatic)


def test_a_model_with_nothing_to_quantise_fails() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, values: Tensor) -> Tensor:
            return values * self.scale

    loader = DataLoader(TensorDataset(torch.randn(12, 3), torch.arange(12) % 3), batch_size=4)
    task = Task.from_loaders(Scale(), loader, apart(loader), metric="accuracy")
    with pytest.raises(OperationFailed, match="to quantise"):
        QuantizeAware().apply(task.model, context_of(task))
