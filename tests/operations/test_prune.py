from __future__ import annotations

import copy
import dataclasses
import itertools

import pytest
import torch
from support.loaders import apart
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.inputs import forward
from petra_optuna.nn.pruning import CRITERIA
from petra_optuna.operations import Context, Prune
from petra_optuna.pipeline import Recipe
from petra_optuna.tasks import Task


def context_of(task: Task) -> Context:
    return Context(task, Recipe(), seed=0, epochs=0)


def weights_of(model: nn.Module) -> bytes:
    return b"".join(value.numpy().tobytes() for value in model.state_dict().values())


@pytest.mark.parametrize(
    ("criterion", "scope"), list(zip(CRITERIA, itertools.cycle(["global", "local"]), strict=False))
)
def test_parameters_fall_and_the_report_equals_a_recount(tiny_task: Task, criterion: str, scope: str) -> None:
    applied = Prune(removed=0.5, criterion=criterion, scope=scope).apply(
        tiny_task.model, context_of(tiny_task)
    )
    report, example = applied.report, tiny_task.example
    assert report["changed"] is True
    assert report["parameters_before"] == count_parameters(tiny_task.model)
    assert report["parameters_after"] == count_parameters(applied.model) < report["parameters_before"]
    assert report["macs_before"] == count_macs(tiny_task.model, example)
    assert report["macs_after"] == count_macs(applied.model, example) < report["macs_before"]
    for name, (_, after) in report["channels"].items():
        assert applied.model.get_submodule(name).weight.shape[0] == after
    assert report["share"] == pytest.approx(0.5, abs=0.15)
    assert "head" in next(iter(report["left_out"]))
    forward(applied.model, example).square().sum().backward()
    assert all(parameter.grad is not None for parameter in applied.model.parameters())


@pytest.mark.parametrize("criterion", ["magnitude_l1", "taylor", "hessian", "batch_norm"])
def test_the_input_stays_as_it_was(tiny_task: Task, criterion: str) -> None:
    model = tiny_task.model
    structure, state = repr(model), copy.deepcopy(model.state_dict())
    Prune(criterion=criterion).apply(model, context_of(tiny_task))
    assert repr(model) == structure
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    "other",
    [
        Prune(removed=0.25, criterion="magnitude_l1", scope="local"),
        Prune(removed=0.5, criterion="magnitude_l2", scope="local"),
        Prune(removed=0.5, criterion="taylor", scope="local"),
    ],
)
def test_every_field_changes_the_result(tiny_task: Task, other: Prune) -> None:
    node = Prune(removed=0.5, criterion="magnitude_l1", scope="local")
    results = [weights_of(each.apply(tiny_task.model, context_of(tiny_task)).model) for each in (node, other)]
    assert results[0] != results[1]


def test_the_scope_changes_the_result() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    with torch.no_grad():
        model[2].weight[:48] *= 1e-3
        model[4].weight[:, :48] *= 1e-3
    loader = DataLoader(TensorDataset(torch.randn(64, 6), torch.arange(64) % 3), batch_size=16)
    task = Task.from_loaders(model, loader, apart(loader), metric="accuracy")
    channels = {
        scope: Prune(removed=0.5, scope=scope).apply(task.model, context_of(task)).report["channels"]
        for scope in ("global", "local")
    }
    assert channels["local"] == {"0": [64, 32], "2": [64, 32]}
    assert channels["global"]["2"][1] < 32 < channels["global"]["0"][1]


def test_pruning_is_the_same_each_time_and_draws_no_random_numbers(tiny_task: Task) -> None:
    state = torch.get_rng_state()
    node = Prune(criterion="taylor", scope="global")
    results = [weights_of(node.apply(tiny_task.model, context_of(tiny_task)).model) for _ in range(2)]
    assert results[0] == results[1]
    assert torch.equal(torch.get_rng_state(), state)


def test_batch_norms_are_measured_on_the_calibration_batches(tiny_task: Task) -> None:
    applied = Prune(removed=0.5).apply(tiny_task.model, context_of(tiny_task))
    norms = [module for module in applied.model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert applied.report["batch_norms"] == len(norms)
    features: list[torch.Tensor] = []
    stem = applied.model.get_submodule("stem")
    with torch.no_grad():
        for (images,), _ in context_of(tiny_task).calibration_batches():
            features.append(stem[0](images).mean((0, 2, 3)))  # type: ignore[index]
    expected = torch.stack(features).mean(0)
    torch.testing.assert_close(stem[1].running_mean, expected, rtol=1e-4, atol=1e-5)  # type: ignore[index]


def test_taylor_keeps_what_the_loss_needs() -> None:
    """Large weights on a channel that the loss never sees: magnitude keeps it, Taylor does not."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        model[0].weight[:8] = 5 * torch.randn(8, 6)
        model[0].bias[:8] = -1000.0  # never fires
        model[0].bias[8:] = 3.0
    loader = DataLoader(TensorDataset(torch.randn(64, 6), torch.arange(64) % 3), batch_size=16)
    task = Task.from_loaders(model, loader, apart(loader), metric="accuracy")
    kept = {
        criterion: Prune(removed=0.5, criterion=criterion).apply(task.model, context_of(task)).model[0].bias  # type: ignore[index]
        for criterion in ("magnitude_l2", "taylor")
    }
    assert (kept["taylor"] == 3.0).all()
    assert (kept["magnitude_l2"] == -1000.0).all()


def test_a_training_step_of_the_users_own_is_what_taylor_asks() -> None:
    calls = []

    def step(model: nn.Module, inputs: tuple[torch.Tensor, ...], targets: torch.Tensor) -> torch.Tensor:
        calls.append(len(targets))
        return model(*inputs).square().mean()

    loader = DataLoader(TensorDataset(torch.randn(64, 6), torch.arange(64) % 3), batch_size=16)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    task = Task.from_loaders(model, loader, apart(loader), metric="accuracy", training_step=step)
    calls.clear()
    assert Prune(criterion="taylor").apply(task.model, context_of(task)).report["changed"]
    assert sum(calls) == 64


READ = {"taylor": {"batches": 32, "samples": 256}, "hessian": {"batches": 4, "samples": 128}}


@pytest.mark.parametrize("criterion", CRITERIA)
def test_only_calibration_batches_are_read_and_the_report_says_how_many(
    tiny_task: Task, criterion: str
) -> None:
    def unread(*_: object, **__: object) -> None:
        raise AssertionError("a split other than calibration was read")

    seen: list[int] = []

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(len(targets))
        return nn.functional.cross_entropy(outputs, targets)

    example = tiny_task.example
    task = dataclasses.replace(tiny_task, loss=loss)
    vars(task)["example"] = example
    for name in ("train", "selection", "test"):
        split = dataclasses.replace(getattr(task, name), collate=unread)
        object.__setattr__(task, name, split)
    report = Prune(criterion=criterion).apply(task.model, context_of(task)).report
    assert report["criterion_read"] == READ.get(criterion, {"batches": 0, "samples": 0})
    assert {"batches": len(seen), "samples": sum(seen)} == report["criterion_read"]


def test_scores_that_are_not_finite_are_refused(tiny_task: Task) -> None:
    task = dataclasses.replace(tiny_task, loss=lambda outputs, targets: outputs.sum() * float("inf"))
    with pytest.raises(OperationFailed, match="taylor scores of some weights are not finite"):
        Prune(criterion="taylor").apply(task.model, context_of(task))


def test_channels_without_a_batch_norm_are_left_out_of_its_criterion() -> None:
    loader = DataLoader(TensorDataset(torch.randn(64, 6), torch.arange(64) % 3), batch_size=16)
    model = nn.Sequential(
        nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 3)
    )
    with torch.no_grad():
        model[1].weight[:16] = 0.1
    task = Task.from_loaders(model, loader, apart(loader), metric="accuracy")
    applied = Prune(removed=0.5, criterion="batch_norm").apply(task.model, context_of(task))
    assert applied.report["channels"] == {"0": [32, 16]}
    assert set(applied.report["left_out"]) == {"3", "5"}
    assert (applied.model[1].weight == 1.0).all()  # type: ignore[index]


def test_the_random_control_follows_the_seed(tiny_task: Task) -> None:
    node = Prune(removed=0.5, criterion="random")
    contexts = [dataclasses.replace(context_of(tiny_task), seed=seed) for seed in (0, 0, 1)]
    first, same, other = (weights_of(node.apply(tiny_task.model, each).model) for each in contexts)
    assert first == same != other


def test_removing_nothing_is_said() -> None:
    loader = DataLoader(TensorDataset(torch.randn(64, 6), torch.arange(64) % 3), batch_size=16)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    task = Task.from_loaders(model, loader, apart(loader), metric="accuracy")
    report = Prune(removed=0.9).apply(task.model, context_of(task)).report
    assert report["changed"] is False
    assert report["reason"]
    assert report["share"] == 0
