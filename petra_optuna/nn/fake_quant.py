"""Simulated INT8 for quantisation-aware training: inserted, trained through, removed.

Weights are rounded per output channel, symmetric in [-127, 127]; what goes into a layer is rounded
to unsigned 8 bits between the smallest and largest value seen. Both are the grids that the exported
file uses, and gradients pass straight through the rounding (arXiv 1712.05877). A symmetric grid per
output channel commutes with the folding of a batch norm that follows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from petra_optuna.nn.inputs import Inputs, forward

WEIGHT_LIMIT = 127
ACTIVATION_LEVELS = 255
_SMALLEST_SCALE = torch.finfo(torch.float32).eps


def fake_quantize_weight(weight: Tensor) -> Tensor:
    """The weight as INT8 holds it: symmetric, one scale for each row of the first dimension."""
    peaks = weight.detach().flatten(1).abs().amax(1)
    scales = (peaks / WEIGHT_LIMIT).clamp_min(_SMALLEST_SCALE)
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -WEIGHT_LIMIT, WEIGHT_LIMIT)


def fake_quantize_activation(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The values as unsigned INT8 holds them between ``low`` and ``high`` (scalars), 0 held exactly."""
    low, high = low.clamp_max(0.0), high.clamp_min(0.0)
    scale = ((high - low) / ACTIVATION_LEVELS).clamp_min(_SMALLEST_SCALE)
    zero = (-low / scale).round().clamp(0, ACTIVATION_LEVELS).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, ACTIVATION_LEVELS)


class _Weight(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return fake_quantize_weight(weight)


class _InputRange:
    """A forward pre-hook: follows the range of a layer's input, then rounds the input within it.

    While calibrating, the range grows to hold everything; in training it follows slowly, because the
    layers before it move; in evaluation mode it stands.
    """

    momentum = 0.01

    def __init__(self) -> None:
        self.low = torch.tensor(float("inf"))
        self.high = torch.tensor(float("-inf"))
        self.calibrating = True

    def __call__(self, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        values = args[0]
        self._observe(values.detach(), layer.training)
        if self.calibrating:
            return args
        return (fake_quantize_activation(values, self.low, self.high), *args[1:])

    def _observe(self, values: Tensor, training: bool) -> None:
        if self.calibrating:
            self.low = torch.minimum(self.low, values.min())
            self.high = torch.maximum(self.high, values.max())
        elif training:
            self.low = torch.lerp(self.low, values.min(), self.momentum)
            self.high = torch.lerp(self.high, values.max(), self.momentum)


class FakeQuantization:
    """Simulated quantisation in place on one model; ``remove`` leaves plain modules.

    Linear and convolution layers are quantised; subclasses of them are left in float, because some
    modules read the weight of such a child without calling it.

    Args:
        model: Private to the caller, in evaluation mode.
        batches: Set the first ranges of the activations; at least one.

    Attributes:
        layers: Names of the layers that are quantised.
    """

    def __init__(self, model: nn.Module, batches: Iterable[Inputs]) -> None:
        self._layers = {name: module for name, module in model.named_modules() if _is_quantisable(module)}
        ranges = {name: _InputRange() for name in self._layers}
        self._handles: list[RemovableHandle] = [
            layer.register_forward_pre_hook(ranges[name]) for name, layer in self._layers.items()
        ]
        with torch.no_grad():
            for inputs in batches:
                forward(model, inputs)
        for name, layer in list(self._layers.items()):
            if torch.isfinite(ranges[name].low):
                parametrize.register_parametrization(layer, "weight", _Weight())
                ranges[name].calibrating = False
            else:  # never called as a module
                del self._layers[name]
        self.layers = tuple(self._layers)

    def remove(self) -> None:
        """Take the simulation out; the trained float weights stay."""
        for handle in self._handles:
            handle.remove()
        for layer in self._layers.values():
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
            _restore_order(layer)


def _is_quantisable(module: nn.Module) -> bool:
    return type(module) in (nn.Linear, nn.Conv1d, nn.Conv2d)


def _restore_order(layer: nn.Module) -> None:
    """Weight before bias again: sums over parameters must not depend on what a layer went through."""
    bias = layer.bias
    if isinstance(bias, nn.Parameter):
        del layer.bias
        layer.register_parameter("bias", bias)
