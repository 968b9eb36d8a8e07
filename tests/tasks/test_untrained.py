"""A task in the untrained mode: where pipelines start, and what counts in its fingerprint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.loaders import apart
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.errors import TaskError
from petra_optuna.nn.inputs import forward
from petra_optuna.tasks import Task


def _network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 3))


def _task(**changes: Any) -> Task:
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(40, 3, 4, 4, generator=generator), torch.arange(40) % 3)
    loader = DataLoader(data, batch_size=8)
    torch.manual_seed(7)
    given = {"model": _network(), "train": loader, "selection": apart(loader), "metric": "accuracy"}
    return Task.from_loaders(**given | changes)


def _weight(model: nn.Module) -> torch.Tensor:
    return next(model.parameters())


def test_pretrained_pipelines_start_from_the_model_whatever_the_seed() -> None:
    task = _task()
    assert task.start(0) is task.start(1) is task.model
    assert task.in_mode("pretrained") is task


@pytest.mark.parametrize("initial", [None, _network], ids=["reset", "given"])
def test_untrained_pipelines_start_from_what_the_seed_draws(initial: Callable[[], nn.Module] | None) -> None:
    task = _task(initial=initial).in_mode("untrained")
    first = task.start(0)
    assert torch.equal(_weight(first), _weight(task.start(0)))
    assert not torch.equal(_weight(first), _weight(task.start(1)))
    assert not torch.equal(_weight(first), _weight(task.model))
    assert not first.training
    assert task.in_mode("untrained") is task


def test_the_mode_and_the_maker_of_the_network_are_in_the_fingerprint() -> None:
    def other() -> nn.Module:
        return _network()

    tasks = [_task(initial=initial) for initial in (None, _network, other)]
    assert len({task.fingerprint for task in tasks}) == 1
    untrained = [task.in_mode("untrained") for task in tasks]
    raw = _task(trained=False).in_mode("untrained")
    assert len({task.fingerprint for task in (tasks[0], raw, *untrained)}) == 5
    again = dataclasses.replace(untrained[1], fingerprint="")
    assert again.fingerprint == untrained[1].fingerprint


def test_a_given_network_is_normalised_like_the_model() -> None:
    """And the fingerprint of its maker holds no address, which another process would not have."""
    normalize = ([0.1, 0.2, 0.3], [1.0, 2.0, 3.0])
    task = _task(initial=_network, normalize=normalize).in_mode("untrained")
    start = task.start(3)
    assert torch.equal(start.get_buffer("0.mean"), task.model.get_buffer("0.mean"))
    assert forward(start, task.example).shape == (8, 3)
    again = _task(initial=_network, normalize=normalize).in_mode("untrained")
    assert again.fingerprint == task.fingerprint
    elsewhere = _task(initial=lambda: _network(), normalize=normalize).in_mode("untrained")
    assert elsewhere.fingerprint != task.fingerprint


def _wider() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 4))


def _other_modules() -> nn.Module:
    return nn.Sequential(nn.Flatten(2), nn.Linear(48, 3))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"initial": _wider}, "another network than the model: their tensors differ"),
        ({"initial": _other_modules}, "another network than the model: their modules differ"),
        ({"initial": lambda: 3}, "must return the untrained network, got int"),
        (
            {"model": nn.Sequential(_network(), nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))},
            "give",
        ),
    ],
)
def test_a_network_that_cannot_start_is_refused_in_one_line(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(TaskError, match=reason) as refused:
        _task(**changes).in_mode("untrained")
    assert "\n" not in str(refused.value)


def test_modes_that_a_task_cannot_have_are_refused() -> None:
    with pytest.raises(TaskError, match="must be one of pretrained, untrained, got 'raw'"):
        _task().in_mode("raw")  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="was put into the mode untrained"):
        _task().in_mode("untrained").in_mode("pretrained")
    with pytest.raises(TaskError, match="is not trained; use the mode untrained"):
        _task(trained=False).in_mode("pretrained")


def test_digits_start_from_their_own_initialisation(digits_task: Task) -> None:
    task = digits_task.in_mode("untrained")
    start = task.start(11)
    assert torch.equal(start.get_buffer("normalize.mean"), task.model.get_buffer("normalize.mean"))
    inputs, targets = next(task.selection.batches(256))
    with torch.no_grad():
        accuracy = (forward(start, inputs).argmax(1) == targets).float().mean()
    assert accuracy < 0.4
