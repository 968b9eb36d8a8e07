"""Simulated INT8 for quantisation-aware training: inserted, trained through, removed.

Weights are rounded per output channel, symmetric; activations to unsigned 8 bits between the smallest and
largest value seen. Both are the grids that the exported file uses, and gradients pass straight through the
rounding (arXiv 1712.05877). A symmetric grid per output channel commutes with the folding of a batch norm
that follows, so batch norms stay as they are. Which tensors are rounded says ``rounding``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

WEIGHT_LIMIT = 127
ACTIVATION_LEVELS = 255
_SMALLEST_SCALE = torch.finfo(torch.float32).eps
_MOMENTUM = 0.01

RangeKey = tuple[str, int, int, int]
"""Function that reads a tensor, which of its tensors, its dimensions, which such call of a pass."""


def fake_quantize_weight(weight: Tensor, limit: int = WEIGHT_LIMIT, axis: int = 0) -> Tensor:
    """The weight as INT8 holds it: symmetric in [-limit, limit], one scale for each index along ``axis``."""
    others = [dimension for dimension in range(weight.dim()) if dimension != axis]
    peaks = weight.detach().abs().amax(others)
    scales = (peaks / limit).clamp_min(_SMALLEST_SCALE)
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, axis, -limit, limit)


def activation_step(low: Tensor, high: Tensor) -> Tensor:
    """The distance between neighbouring values between ``low`` and ``high`` (scalars), 0 among them."""
    return ((high.clamp_min(0.0) - low.clamp_max(0.0)) / ACTIVATION_LEVELS).clamp_min(_SMALLEST_SCALE)


def fake_quantize_activation(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The values as unsigned INT8 holds them between ``low`` and ``high`` (scalars), 0 held exactly."""
    scale = activation_step(low, high)
    zero = (-low.clamp_max(0.0) / scale).round().clamp(0, ACTIVATION_LEVELS).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, ACTIVATION_LEVELS)


class RangeObserver:
    """Follows the range of one tensor and rounds within it.

    While calibrating, the range grows to hold everything; in training it follows slowly, because the
    layers before it move; in evaluation mode it stands.
    """

    def __init__(self) -> None:
        self.low = torch.tensor(float("inf"))
        self.high = torch.tensor(float("-inf"))

    @property
    def step(self) -> Tensor:
        """The distance between neighbouring values."""
        return activation_step(self.low, self.high)

    def grow(self, values: Tensor) -> None:
        """Hold these values as well."""
        self.low = torch.minimum(self.low, values.detach().min())
        self.high = torch.maximum(self.high, values.detach().max())

    def follow(self, values: Tensor) -> None:
        """Move a little towards the range of these values."""
        self.low = torch.lerp(self.low, values.detach().min(), _MOMENTUM)
        self.high = torch.lerp(self.high, values.detach().max(), _MOMENTUM)

    def round(self, values: Tensor) -> Tensor:
        """The values as the file holds them."""
        return fake_quantize_activation(values, self.low, self.high)


class QuantState:
    """What the simulation knows between two calls of a model: ranges, weights and settings.

    Attributes:
        limit: Largest weight of a layer in INT8 arithmetic.
        calibrating: Whether ranges grow and nothing is rounded.
        training: Whether ranges follow.
        owners: Identity of each parameter -> names of the modules that own it.
        used: Names of modules whose weight has been rounded.
    """

    def __init__(self, model: nn.Module, limit: int) -> None:
        self.limit = limit
        self.calibrating = True
        self.training = False
        self.owners: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self.owners.setdefault(id(parameter), []).append(name.rpartition(".")[0])
        self.used: set[str] = set()
        self._ranges: dict[RangeKey, RangeObserver] = {}

    def range_of(self, key: RangeKey, values: Tensor) -> RangeObserver | None:
        """The range of a tensor, up to date; None for one that calibration has not seen."""
        if self.calibrating:
            self._ranges.setdefault(key, RangeObserver()).grow(values)
        found = self._ranges.get(key)
        if found is not None and self.training and not self.calibrating:
            found.follow(values)
        return found

    def steps(self) -> tuple[float, ...]:
        """The distance between neighbouring values of each activation, in the order they were first seen."""
        return tuple(float(found.step) for found in self._ranges.values())

    def is_weight(self, value: Any) -> bool:
        """Whether this is a parameter of the model, of rank two or more."""
        return isinstance(value, Tensor) and id(value) in self.owners and value.dim() > 1

    def round_weight(self, weight: Tensor, *, limit: int = WEIGHT_LIMIT, axis: int = 0) -> Tensor:
        """The weight as the file stores it."""
        self.used.update(self.owners[id(weight)])
        if self.calibrating:
            return weight
        return fake_quantize_weight(weight.float(), limit, axis)
