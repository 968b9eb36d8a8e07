"""One training step and one evaluation are tried when a task is made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.errors import TaskError
from petra_optuna.tasks import Metric, Task

X = torch.randn(120, 6, generator=torch.Generator().manual_seed(0))
ONES = (X[:, :1] > 0.8).float()
CLASSES = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()


def _task(model: nn.Module, targets: Tensor, metric: Any, **changes: Any) -> Task:
    parts = (slice(0, 80), slice(80, 120))
    train, selection = (DataLoader(TensorDataset(X[part], targets[part]), batch_size=8) for part in parts)
    return Task.from_loaders(model, train, selection, metric=metric, **changes)


class _Auxiliary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.auxiliary = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        return (self.head(x), self.auxiliary(x)) if self.training else self.head(x)


class _Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).reshape(-1, 3, 4)  # type: ignore[no-any-return]


def _constant(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs * 0).sum() + 3.0


def _auxiliary_step(model: nn.Module, inputs: Any, targets: Tensor) -> Tensor:
    return sum(functional.cross_entropy(part, targets) for part in model(*inputs))  # type: ignore[return-value]


def _failing(outputs: np.ndarray, targets: np.ndarray) -> float:
    raise ValueError("shapes (40,3) and (40,) not aligned")


def _importing(outputs: np.ndarray, targets: np.ndarray) -> float:
    raise ModuleNotFoundError("No module named 'metrics_of_ones_own'")


LINEAR, BINARY = nn.Linear(6, 3), functional.binary_cross_entropy_with_logits
SIGMOID = nn.Sequential(nn.Linear(6, 1), nn.Sigmoid())
REFUSED: dict[str, tuple[nn.Module, Tensor, Any, dict[str, Any], str]] = {
    "constant": (LINEAR, CLASSES, "accuracy", {"loss": _constant}, "the training loss is constant"),
    "one class": (nn.Linear(6, 1), ONES, "accuracy", {}, "cross-entropy of one class is constant"),
    "sigmoid": (SIGMOID, ONES, "accuracy", {"loss": nn.BCELoss()}, "reads one output a sample as a logit"),
    "sigmoid, f1": (SIGMOID, ONES, "macro_f1", {"loss": nn.MSELoss()}, "gives probabilities"),
    "positions": (_Positions(), CLASSES, "accuracy", {}, r"read outputs \(N, C\)"),
    "labels": (LINEAR, ONES.expand(-1, 3), "accuracy", {"loss": BINARY}, "one class index a sample"),
    "signs": (
        nn.Linear(6, 1),
        2 * ONES - 1,
        "accuracy",
        {"loss": nn.SoftMarginLoss()},
        "class indices from 0",
    ),
    "broadcast": (
        nn.Linear(6, 1),
        ONES[:, 0],
        "rmse",
        {"loss": nn.HuberLoss()},
        r"the loss broadcasts: .*\[8\].*\[8, 1\]",
    ),
    "missing library": (
        LINEAR,
        CLASSES,
        Metric("m", "maximize", _importing),
        {},
        "m does not fit outputs .*ModuleNotFoundError",
    ),
    "rmse": (LINEAR, CLASSES, "rmse", {}, "rmse compares value by value"),
    "own metric": (
        LINEAR,
        CLASSES,
        Metric("m", "maximize", _failing),
        {},
        "m does not fit outputs .*ValueError",
    ),
    "nan": (
        LINEAR,
        CLASSES,
        Metric("m", "maximize", lambda *_: float("nan")),
        {},
        "m of the model's outputs",
    ),
    "no mean": (
        LINEAR,
        CLASSES,
        Metric("m", "maximize", lambda *_: 1.0, lambda outputs, targets: outputs[:, 0]),
        {},
        "`per_sample` of m must give",
    ),
    "two ways": (
        _Auxiliary(),
        CLASSES,
        "accuracy",
        {"training_step": _auxiliary_step, "distillation": "classes"},
        "there is no distillation",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_or_judged_is_refused_in_one_line(name: str) -> None:
    model, targets, metric, changes, reason = REFUSED[name]
    with pytest.raises(TaskError, match=reason) as refused:
        _task(model, targets, metric, **changes)
    assert "\n" not in str(refused.value)


def _shifted(bias: float) -> nn.Module:
    model = nn.Linear(6, 1)
    nn.init.normal_(model.weight, std=0.01)
    nn.init.constant_(model.bias, bias)
    return model


def test_what_only_looks_wrong_is_accepted() -> None:
    """Logits from 0 to 1, a margin loss that is satisfied, two outputs in training, ranks of sigmoids."""
    _task(_shifted(0.5), ONES, "accuracy", loss=BINARY)
    done = nn.Linear(6, 3)
    with torch.no_grad():
        done.weight.zero_()
        done.bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    _task(done, torch.zeros(120).long(), "accuracy", loss=nn.MultiMarginLoss())
    _task(_Auxiliary(), CLASSES, "accuracy")
    _task(_Auxiliary(), CLASSES, "accuracy", training_step=_auxiliary_step)
    _task(SIGMOID, ONES, "auc", loss=nn.BCELoss())


def test_a_metric_that_needs_more_samples_gets_them() -> None:
    rare = torch.zeros(400).long()
    rare[300] = rare[399] = 1
    data = [TensorDataset(torch.randn(300, 6), rare[:300]), TensorDataset(torch.randn(400, 6), rare)]
    train, selection = (DataLoader(part, batch_size=8) for part in data)
    assert Task.from_loaders(nn.Linear(6, 2), train, selection, metric="auc").metric.name == "auc"


def test_the_model_of_the_task_is_not_changed_by_the_trial() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 3))
    task = _task(model, CLASSES, "accuracy")
    for name, tensor in task.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
    assert not any(module.training for module in task.model.modules())
    assert all(parameter.grad is None for parameter in task.model.parameters())
