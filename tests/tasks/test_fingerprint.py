from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from petra_optuna.tasks.arrays import SampleArray
from petra_optuna.tasks.fingerprint import fingerprint_of
from petra_optuna.tasks.metrics import metric
from petra_optuna.tasks.split import Split

X, Y = torch.arange(4000.0).view(2000, 2), torch.arange(2000)


class Plain(Dataset[Any]):
    """A data set of which the fingerprint knows nothing, with a random transform."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index] + torch.rand(2), self.targets[index]


class Activation:
    """Its text is its address."""


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, 2)


def _bytes(inputs: Tensor, targets: Tensor) -> SampleArray:
    return SampleArray(inputs.to(torch.int64), targets, 1.0)


@pytest.mark.parametrize("make", [TensorDataset, _bytes, Plain])
def test_equal_tasks_agree_and_any_change_shows(make: Callable[[Tensor, Tensor], Dataset[Any]]) -> None:
    def fingerprint(model: nn.Module, inputs: Tensor, targets: Tensor, name: str = "accuracy") -> str:
        return fingerprint_of(model, {"train": Split(make(inputs, targets)), "test": None}, metric(name))

    base = fingerprint(_model(), X, Y)
    assert fingerprint(_model(), X.clone(), Y.clone()) == base
    heavier, moved, relabelled = copy.deepcopy(_model()), X.clone(), Y.clone()
    with torch.no_grad():
        heavier.weight[0, 0] += 1e-6  # type: ignore[index, operator]
    moved[1000, 0] += 1
    relabelled[1000] = 7
    changed = [
        fingerprint(heavier, X, Y),
        fingerprint(_model(), moved, Y),
        fingerprint(_model(), X, relabelled),
        fingerprint(_model(), X[:-1], Y[:-1]),
        fingerprint(_model(), X, Y, "macro_f1"),
        fingerprint(nn.Sequential(_model()), X, Y),
    ]
    assert len({base, *changed}) == 1 + len(changed)


def test_addresses_in_the_models_text_do_not_count() -> None:
    class Described(nn.Linear):
        def __init__(self) -> None:
            torch.manual_seed(0)
            super().__init__(2, 2)
            self.activation = Activation()

        def extra_repr(self) -> str:
            return f"activation={self.activation}"

    one, two = Described(), Described()
    assert repr(one) != repr(two)
    assert fingerprint_of(one, {}, metric("accuracy")) == fingerprint_of(two, {}, metric("accuracy"))


def test_the_role_of_a_split_counts() -> None:
    one, two = Split(TensorDataset(X, Y)), Split(TensorDataset(X + 1, Y))
    first = fingerprint_of(_model(), {"train": one, "selection": two}, metric("accuracy"))
    assert first != fingerprint_of(_model(), {"train": two, "selection": one}, metric("accuracy"))
