"""Whether two forms of a model compute the same, up to rounding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


def agree(values: Any, expected: Any) -> bool:
    """Whether tensors, or structures of tensors, are equal up to half of the digits that they have.

    The digits are those of the largest value of each tensor.
    """
    pairs = list(zip(tree_leaves(values), tree_leaves(expected), strict=False))
    alike = len(tree_leaves(values)) == len(tree_leaves(expected))
    return alike and all(_leaves_agree(value, target) for value, target in pairs)


def largest_change(values: Tensor, before: Tensor) -> float:
    """Largest change of a value, as a share of the largest value before."""
    change = (values.double() - before.double()).abs()
    scale = float(before.double().abs().max())
    return float(change.max()) / scale if scale else float(change.max())


def _leaves_agree(value: Any, expected: Any) -> bool:
    if not isinstance(value, Tensor) or not isinstance(expected, Tensor):
        return bool(type(value) is type(expected))
    if value.shape != expected.shape or value.dtype != expected.dtype:
        return False
    if not value.is_floating_point():
        return torch.equal(value, expected)
    tolerance = torch.finfo(value.dtype).eps ** 0.5
    finite = expected[expected.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(value, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
