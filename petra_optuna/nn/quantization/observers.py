"""Observers of activation ranges, and the rounding of weights and activations to INT8.

Weights are rounded per output channel, symmetric; activations to unsigned 8 bits between the smallest and
largest value seen. The exported file rounds to the same values, and gradients pass straight through the
rounding (arXiv 1712.05877). Symmetric rounding per output channel commutes with the folding of a batch norm
that follows, so batch norms stay as they are. ``fake_quant_mode`` decides which tensors are rounded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from petra_optuna.nn.quantization.coarse import ACTIVATION_LEVELS, why_too_coarse

WEIGHT_LIMIT = 127
_SMALLEST_SCALE = torch.finfo(torch.float32).eps
_AVERAGING = 0.01

RangeKey = tuple[str, int, int, int]
"""Name of the function that reads a tensor, index of the tensor among its arguments, number of dimensions of
the tensor, number of such calls so far in the forward pass."""


def fake_quantize_weight(weight: Tensor, limit: int = WEIGHT_LIMIT, axis: int = 0) -> Tensor:
    """Round a weight as INT8 holds it: symmetric in [-limit, limit], one scale for each index of ``axis``."""
    others = [dimension for dimension in range(weight.dim()) if dimension != axis]
    peaks = weight.detach().abs().amax(others)
    scales = (peaks / limit).clamp_min(_SMALLEST_SCALE)
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, axis, -limit, limit)


def activation_scale(low: Tensor, high: Tensor) -> Tensor:
    """Scale of unsigned INT8 from ``low`` to ``high`` (scalars), a range that is made to include 0."""
    return ((high.clamp_min(0.0) - low.clamp_max(0.0)) / ACTIVATION_LEVELS).clamp_min(_SMALLEST_SCALE)


def fake_quantize_activation(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Round values as unsigned INT8 holds them from ``low`` to ``high`` (scalars), 0 held exactly."""
    scale = activation_scale(low, high)
    zero = (-low.clamp_max(0.0) / scale).round().clamp(0, ACTIVATION_LEVELS).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, ACTIVATION_LEVELS)


class RangeObserver:
    """Observes the range of one tensor and rounds within it.

    While calibrating, the range widens to hold everything; in training it follows as a moving average,
    because the layers before it change; in evaluation mode it stays.
    """

    def __init__(self) -> None:
        self.low = torch.tensor(float("inf"))
        self.high = torch.tensor(float("-inf"))

    @property
    def scale(self) -> Tensor:
        """Scale of the rounding: the distance between neighbouring values."""
        return activation_scale(self.low, self.high)

    def widen(self, values: Tensor) -> None:
        """Widen the range to hold these values as well."""
        self.low = torch.minimum(self.low, values.detach().min())
        self.high = torch.maximum(self.high, values.detach().max())

    def average(self, values: Tensor) -> None:
        """Move the range a little towards that of these values: a moving average."""
        self.low = torch.lerp(self.low, values.detach().min(), _AVERAGING)
        self.high = torch.lerp(self.high, values.detach().max(), _AVERAGING)

    def round(self, values: Tensor) -> Tensor:
        """Round values as the file holds them."""
        return fake_quantize_activation(values, self.low, self.high)


class QuantState:
    """State of the simulation between two calls of a model: observers, weights and settings.

    Attributes:
        limit: Largest weight of a layer in INT8 arithmetic.
        calibrating: Whether ranges widen and nothing is rounded.
        training: Whether ranges follow as moving averages.
        owners: Names of the modules that own a parameter, by the parameter's identity.
        rounded_modules: Names of modules whose weight has been rounded.
    """

    def __init__(self, model: nn.Module, limit: int) -> None:
        self.limit = limit
        self.calibrating = True
        self.training = False
        self.owners: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self.owners.setdefault(id(parameter), []).append(name.rpartition(".")[0])
        self.rounded_modules: set[str] = set()
        self._observers: dict[RangeKey, RangeObserver] = {}
        self._coarse: set[RangeKey] = set()

    def observe(self, key: RangeKey, values: Tensor, *, may_mask: bool = True) -> RangeObserver | None:
        """The observer of a tensor, after it has seen these values.

        Args:
            key: Where the tensor is read.
            values: Tensor itself.
            may_mask: Whether large values may be masks (``why_too_coarse``).

        Returns:
            None where calibration saw none, or values that INT8 cannot hold: the file leaves them in float.
        """
        if self.calibrating:
            self._observers.setdefault(key, RangeObserver()).widen(values)
            if key not in self._coarse and why_too_coarse(values, may_mask=may_mask):
                self._coarse.add(key)
        if key in self._coarse:
            return None
        observer = self._observers.get(key)
        if observer is not None and self.training and not self.calibrating:
            observer.average(values)
        return observer

    def scales(self) -> tuple[float, ...]:
        """Scale of each activation, in the order they were first seen."""
        return tuple(
            float(observer.scale) for key, observer in self._observers.items() if key not in self._coarse
        )

    def is_weight(self, value: Any) -> bool:
        """Whether this is a parameter of the model, of rank two or more."""
        return isinstance(value, Tensor) and id(value) in self.owners and value.dim() > 1

    def round_weight(self, weight: Tensor, *, limit: int = WEIGHT_LIMIT, axis: int = 0) -> Tensor:
        """Round a weight as the file stores it."""
        self.rounded_modules.update(self.owners[id(weight)])
        if self.calibrating:
            return weight
        return fake_quantize_weight(weight.float(), limit, axis)
