from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from support.loaders import apart
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.deploy import lower
from petra_optuna.errors import OperationFailed
from petra_optuna.evaluation.checkpoint import from_bytes, to_bytes
from petra_optuna.models import ResidualNet
from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.inputs import forward
from petra_optuna.nn.pruning import CRITERIA
from petra_optuna.nn.randomness import seeded
from petra_optuna.operations import Context, DropBlocks, LowRank, Prune
from petra_optuna.pipeline import Recipe
from petra_optuna.tasks import Task


def context_of(task: Task, seed: int = 0) -> Context:
    return Context(task, Recipe(), seed=seed, epochs=0)


def task_of(model: nn.Module, inputs: Tensor) -> Task:
    loader = DataLoader(TensorDataset(inputs, torch.arange(len(inputs)) % 3), batch_size=16)
    return Task.from_loaders(model, loader, apart(loader), metric="accuracy")


@pytest.fixture
def residual() -> Task:
    """Six blocks, five of them residual with an identity shortcut; random weights."""
    with seeded(1):
        model = ResidualNet(1, 3, widths=(8, 16), blocks=3)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
        return task_of(model, torch.randn(64, 1, 8, 8))


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_report_equals_a_recount_and_the_input_stays(residual: Task, criterion: str) -> None:
    model, example = residual.model, residual.example
    structure, before = repr(model), copy.deepcopy(model)
    random_state = torch.get_rng_state()
    applied = DropBlocks(removed=0.5, criterion=criterion).apply(model, context_of(residual))
    report = applied.report
    assert repr(model) == structure
    assert same(model, before)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert json.loads(json.dumps(report)) == report
    assert report["changed"] is True
    assert report["parameters_before"] == count_parameters(model)
    assert report["parameters_after"] == count_parameters(applied.model) < report["parameters_before"]
    assert report["macs_before"] == count_macs(model, example)
    assert report["macs_after"] == count_macs(applied.model, example) < report["macs_before"]
    blocks = {f"stages.{place}" for place in (0, 1, 2, 4, 5)}
    assert {*report["dropped"], *report["kept"], *report["left_out"]} == blocks | {"stages.3.conv2"}
    scored = len(report["dropped"]) + len(report["kept"])
    assert scored == (5 if criterion == "batch_norm" else 6)
    assert len(report["dropped"]) == round(0.5 * scored)
    assert list(report["dropped"].values()) == sorted(report["dropped"].values())
    assert max(report["dropped"].values()) <= min(report["kept"].values())
    assert all(isinstance(applied.model.get_submodule(name), nn.Identity) for name in report["dropped"])
    outputs = forward(applied.model, example)
    assert outputs.shape == forward(model, example).shape
    outputs.square().sum().backward()
    assert all(parameter.grad is not None for parameter in applied.model.parameters())
    assert not any(module.training for module in applied.model.modules())


@pytest.mark.parametrize("weak", ["stages.1", "stages.4"])
@pytest.mark.parametrize("criterion", ["magnitude_l1", "magnitude_l2", "taylor", "hessian"])
def test_a_block_of_tiny_weights_goes_first(residual: Task, weak: str, criterion: str) -> None:
    """Whatever its width; its norms take the scale out again for the loss, so they are tiny as well."""
    with torch.no_grad():
        for parameter in residual.model.get_submodule(weak).parameters():
            parameter *= 1e-3
    report = DropBlocks(removed=0.1, criterion=criterion).apply(residual.model, context_of(residual)).report
    assert list(report["dropped"]) == [weak]


@pytest.mark.parametrize("weak", ["stages.1", "stages.4"])
def test_a_block_of_small_gammas_goes_first_by_batch_norm(residual: Task, weak: str) -> None:
    block = residual.model.get_submodule(weak)
    with torch.no_grad():
        for name in ("bn1", "bn2"):
            block.get_submodule(name).weight.mul_(-0.1)  # type: ignore[union-attr, operator]
    applied = DropBlocks(removed=0.1, criterion="batch_norm").apply(residual.model, context_of(residual))
    assert list(applied.report["dropped"]) == [weak]
    assert applied.report["left_out"] == {"stages.3.conv2": "batch_norm has nothing to score in it"}


def test_batch_norms_are_measured_again(residual: Task) -> None:
    applied = DropBlocks(removed=0.2, criterion="magnitude_l2").apply(residual.model, context_of(residual))
    norms = [module for module in applied.model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert applied.report["batch_norms"] == len(norms)
    with torch.no_grad():
        batches = context_of(residual).calibration_batches()
        means = [applied.model.get_submodule("stem.0")(*inputs).mean((0, 2, 3)) for inputs, _ in batches]
    found = applied.model.get_submodule("stem.1").running_mean
    torch.testing.assert_close(found, torch.stack(means).mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "other",
    [DropBlocks(removed=0.6, criterion="magnitude_l2"), DropBlocks(removed=0.2, criterion="hessian")],
)
def test_every_field_changes_the_result(residual: Task, other: DropBlocks) -> None:
    node = DropBlocks(removed=0.2, criterion="magnitude_l2")
    models = [each.apply(residual.model, context_of(residual)).model for each in (node, other)]
    assert not same(*models)


def test_the_random_control_follows_the_seed(residual: Task) -> None:
    node = DropBlocks(removed=0.4, criterion="random")
    dropped = [tuple(node.apply(residual.model, context_of(residual, s)).report["dropped"]) for s in range(5)]
    assert dropped[0] == tuple(node.apply(residual.model, context_of(residual, 0)).report["dropped"])
    assert len(set(dropped)) > 2


def test_shapes_follow_weights() -> None:
    assert DropBlocks().shape_follows_weights


def test_at_least_one_goes_and_what_is_left_can_go_again(residual: Task) -> None:
    node, model = DropBlocks(removed=0.1, criterion="magnitude_l2"), residual.model
    for gone in range(1, 7):
        model = node.apply(model, context_of(residual)).model
        assert sum(isinstance(module, nn.Identity) for module in model.modules()) >= gone
    with pytest.raises(OperationFailed, match="no residual block and no layer"):
        node.apply(model, context_of(residual))


@pytest.mark.parametrize("first", [Prune(removed=0.5), LowRank(rule="share", kept_weights=0.5), None])
def test_it_composes_and_the_checkpoint_rebuilds_it(residual: Task, first: Prune | LowRank | None) -> None:
    model = residual.model if first is None else first.apply(residual.model, context_of(residual)).model
    applied = DropBlocks(removed=0.4).apply(model, context_of(residual))
    for each in (applied.model, Prune(removed=0.5).apply(applied.model, context_of(residual)).model):
        rebuilt = from_bytes(to_bytes(each, residual.model), residual.model)
        assert same(rebuilt, each)
        assert torch.equal(forward(rebuilt, residual.example), forward(each, residual.example))


def test_layers_of_a_plain_network_go_but_not_its_output() -> None:
    with seeded(0):
        layers = [nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU()]
        model = nn.Sequential(*layers, nn.Linear(16, 3), nn.Linear(3, 3))
        task = task_of(model, torch.randn(64, 6))
    with torch.no_grad():
        task.model[4].weight *= 0.01  # type: ignore[index, operator, union-attr]
    report = DropBlocks(removed=0.5, criterion="magnitude_l1").apply(task.model, context_of(task)).report
    assert list(report["dropped"]) == ["4"]
    assert list(report["kept"]) == ["2"]
    assert list(report["left_out"]) == ["7"]


def test_layers_of_an_encoder_go_though_they_are_called_with_masks(tmp_path: Path) -> None:
    with seeded(0):
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        model = nn.Sequential(encoder, nn.Flatten(), nn.Linear(64, 3)).eval()
        task = task_of(model, torch.randn(64, 4, 16))
    applied = DropBlocks(removed=0.5).apply(model, context_of(task))
    dropped = [int(name.rpartition(".")[2]) for name in applied.report["dropped"]]
    shorter = copy.deepcopy(model)
    kept = [layer for at, layer in enumerate(encoder.layers) if at not in dropped]
    shorter.get_submodule("0").layers = nn.ModuleList(copy.deepcopy(kept))
    assert 0 < len(kept) < 3
    expected = forward(shorter, task.example)
    assert torch.allclose(forward(applied.model, task.example), expected, atol=1e-6)
    rebuilt = from_bytes(to_bytes(applied.model, task.model), task.model)
    assert torch.allclose(forward(rebuilt, task.example), expected, atol=1e-6)
    assert lower(applied.model, task.example, tmp_path / "model.onnx").size_bytes > 0


def test_frozen_weights_are_scored_and_stay_frozen(residual: Task) -> None:
    frozen = dataclasses.replace(residual, model=copy.deepcopy(residual.model).requires_grad_(False))
    frozen.model.get_submodule("head").requires_grad_(True)
    kept = [DropBlocks().apply(task.model, context_of(task)) for task in (residual, frozen)]
    assert {**kept[0].report, "batch_norms": 0} == kept[1].report
    trained = {name for name, parameter in kept[1].model.named_parameters() if parameter.requires_grad}
    assert trained == {"head.weight", "head.bias"}


def test_nothing_to_drop_is_an_error_with_the_reason() -> None:
    with seeded(0):
        plain = task_of(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(64, 6))
        square = task_of(nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 3)), torch.randn(64, 6))
        wide = [nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)]
        unscored = task_of(nn.Sequential(*wide), torch.randn(64, 6))
    with pytest.raises(OperationFailed, match="no residual block and no layer that maps a shape onto"):
        DropBlocks().apply(plain.model, context_of(plain))
    with pytest.raises(OperationFailed, match="1: no other layer stands between it and the output"):
        DropBlocks().apply(square.model, context_of(square))
    with pytest.raises(OperationFailed, match="1: batch_norm has nothing to score in it"):
        DropBlocks(criterion="batch_norm").apply(unscored.model, context_of(unscored))
