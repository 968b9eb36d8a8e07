from __future__ import annotations

import copy
import dataclasses
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import small_task
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.errors import TaskError
from petra_optuna.tasks import Metric, Task
from petra_optuna.tasks.held import held_sha256

FACTOR = 1.0
X, Y, Z = (
    torch.randn(64, 4, generator=torch.Generator().manual_seed(0)),
    torch.arange(64) % 3,
    torch.arange(64) % 2,
)


def _closure(held: Any) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        assert held is not None
        return functional.cross_entropy(outputs, targets)

    return loss


def _default(held: Any) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(outputs: Tensor, targets: Tensor, held: Any = held) -> Tensor:
        return functional.cross_entropy(outputs, targets)

    return loss


def _with_weight(outputs: Tensor, targets: Tensor, weight: Any) -> Tensor:
    return functional.cross_entropy(outputs, targets)


def _with_global(outputs: Tensor, targets: Tensor) -> Tensor:
    return FACTOR * functional.cross_entropy(outputs, targets)


def _calls_another(outputs: Tensor, targets: Tensor) -> Tensor:
    return _with_global(outputs, targets)


class _Callable:
    def __init__(self, held: Any) -> None:
        self.held = held

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets)

    method = __call__


@dataclasses.dataclass
class _Setting:
    value: Any


HOLDERS: dict[str, Callable[[Any], Any]] = {
    "closure": _closure,
    "default": _default,
    "partial": lambda held: functools.partial(_with_weight, weight=held),
    "object": _Callable,
    "method": lambda held: _Callable(held).method,
    "function in a closure": lambda held: _closure(_closure(held)),
    "object in a closure": lambda held: _closure(_Setting([{"a": (held,)}])),
    "module": lambda held: _Module(held),
}


class _Module(nn.Module):
    def __init__(self, held: Any) -> None:
        super().__init__()
        self.layer, self.held = nn.Identity(), held

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets)


def _long(middle: float) -> Tensor:
    values = torch.zeros(2000)
    values[1000] = middle
    return values


VALUES: dict[str, tuple[Any, Any]] = {
    "number": (1.0, 2.0),
    "text": ("a", "b"),
    "long tensor": (_long(0), _long(1)),
    "array": (_long(0).numpy(), _long(1).numpy()),
    "set": ({"a", "b"}, {"a", "c"}),
    "function": (torch.sin, torch.cos),
    "module": (nn.Linear(2, 2), nn.Linear(2, 2)),
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("kind", VALUES)
def test_what_is_held_counts_wherever_it_is_held(holder: str, kind: str) -> None:
    one, other = (held_sha256(None, HOLDERS[holder](value)) for value in VALUES[kind])
    again = held_sha256(None, HOLDERS[holder](copy.deepcopy(VALUES[kind][0])))
    assert one == again != other


def test_functions_that_hold_nothing_add_nothing() -> None:
    """So the tasks of stored studies stay what they were."""
    assert held_sha256(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()), functional.relu) == ""


@pytest.mark.parametrize("function", [_with_global, _calls_another])
def test_a_constant_of_the_users_module_counts(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = held_sha256(None, function)
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 2.0)
    assert held_sha256(None, function) != before


def test_a_circle_has_an_end() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    assert held_sha256(None, _closure(ring)) == held_sha256(None, _closure(copy.deepcopy(ring)))


def test_another_process_finds_the_same() -> None:
    """Addresses, and the order of sets, differ between processes."""
    code = (
        "from support import small_task; import torch; from petra_optuna.tasks.held import held_sha256\n"
        "def f(x, held=({'a', 'b', 'c'}, torch.ones(3), small_task.make)): return held\n"
        "print(held_sha256(None, f))"
    )
    paths = os.pathsep.join(sys.path)
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    }
    assert len(seen) == 1
    assert small_task.CLASSES == 4


@pytest.mark.parametrize("thing", [threading.Lock(), sys.stdout, (number for number in range(3))])
def test_what_cannot_be_hashed_is_refused_in_one_line(thing: Any) -> None:
    with pytest.raises(TaskError, match="fingerprint cannot hold a") as refused:
        held_sha256(None, _closure(thing))
    assert "\n" not in str(refused.value)


class _Scaled(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer, self.scale = nn.Linear(4, 3), scale

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale  # type: ignore[no-any-return]


def _hooked(factor: float) -> nn.Module:
    model = _Scaled(1.0)
    model.layer.register_forward_hook(lambda module, given, output: output * factor)
    return model


def _task(model: nn.Module | None = None, **changes: Any) -> Task:
    parts = (slice(0, 40), slice(40, 64))
    train, selection = (DataLoader(TensorDataset(X[part], Y[part], Z[part]), batch_size=8) for part in parts)
    given: dict[str, Any] = {"metric": "accuracy", "unpack": _first_target, **changes}
    return Task.from_loaders(model or _Scaled(1.0), train, selection, **given)


def _first_target(batch: Any) -> Any:
    return (batch[0],), batch[1]


def _second_target(batch: Any) -> Any:
    return (batch[0],), batch[2]


def _top(count: int) -> Metric:
    return Metric("top", "maximize", lambda outputs, targets: float(count))


def _weighted(last: float) -> nn.Module:
    return nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0, last]))


def test_tasks_that_hold_something_else_are_other_tasks() -> None:
    tasks = [
        _task(),
        _task(_Scaled(0.5)),
        _task(_hooked(2.0)),
        _task(_hooked(3.0)),
        _task(loss=_weighted(1.0)),
        _task(loss=_weighted(50.0)),
        _task(loss=nn.CrossEntropyLoss(label_smoothing=0.3)),
        _task(unpack=_second_target),
        _task(metric=_top(1)),
        _task(metric=_top(5)),
        _task(metric=dataclasses.replace(_top(1), direction="minimize")),
    ]
    assert len({task.fingerprint for task in tasks}) == len(tasks)
    assert _task().fingerprint == tasks[0].fingerprint


def test_a_replaced_field_makes_another_task() -> None:
    task = _task()
    for changes in ({"loss": _weighted(2.0)}, {"model": _Scaled(3.0)}, {"metric": _top(2)}):
        other = dataclasses.replace(task, **changes)
        assert other.fingerprint != task.fingerprint
        back = dataclasses.replace(other, **{name: getattr(task, name) for name in changes})
        assert back.fingerprint == task.fingerprint
    assert dataclasses.replace(task, name="other").fingerprint == task.fingerprint
    assert dataclasses.replace(task, fingerprint="given").fingerprint == "given"
    untrained = task.in_mode("untrained")
    assert dataclasses.replace(untrained, loss=_weighted(2.0)).fingerprint != untrained.fingerprint
