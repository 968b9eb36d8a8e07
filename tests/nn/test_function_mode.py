from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from petra_optuna.nn.function_mode import FunctionMode


class _Doubled(FunctionMode):
    """Returns twice the result of every call, and records the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], int, list[str]]] = []

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.calls.append((func, len(args), sorted(kwargs)))
        return 2 * func(*args, **kwargs)


def test_each_call_inside_is_intercepted_once_with_its_arguments_and_none_outside() -> None:
    values = torch.ones(2)
    with _Doubled() as mode:
        doubled = torch.softmax(values, dim=0)
        summed = torch.sum(values)
    assert torch.equal(doubled, 2 * torch.softmax(values, 0))
    assert float(summed) == 4.0
    assert mode.calls == [(torch.softmax, 1, ["dim"]), (torch.sum, 1, [])]
    assert float(torch.sum(values)) == 2.0
