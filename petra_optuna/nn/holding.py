"""Tensors that hold other values for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor


@contextmanager
def temporarily_set(values: Mapping[Tensor, Tensor]) -> Iterator[None]:
    """Let each tensor hold the value given for it inside the block, and its own again after.

    Args:
        values: New contents by tensor, of the same shape.
    """
    kept = [(tensor, tensor.data) for tensor in values]
    try:
        for tensor, value in values.items():
            tensor.data = value
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data
