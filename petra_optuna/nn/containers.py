"""Tensors in the plain containers that models take, return and hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Tensors in a value and in the dicts, lists, tuples and sets that it is made of."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, list | tuple | set):
        for part in value:
            yield from tensors_in(part)
