"""Inputs of a model: a tuple of positional or a dict of keyword tensors, batch first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from petra_optuna.nn.attention.kernels import layers_called

Inputs = tuple[Tensor, ...] | dict[str, Tensor]

DynamicAxes = Mapping[str, Mapping[int, str]]
"""Axes besides the batch whose size varies: name of an input -> axis -> name of the axis.

Axes of one name have one size in each batch, for example ``{"input": {1: "time"}}``."""

ONLY_BATCH: DynamicAxes = MappingProxyType({})
"""Every axis but the batch has one size."""


def call(model: nn.Module, inputs: Inputs) -> Any:
    """Call ``model`` with ``inputs`` and return all that it returns.

    Every layer is called: PyTorch's fused form of attention layers is off.
    """
    with layers_called():
        return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def forward(model: nn.Module, inputs: Inputs) -> Tensor:
    """Call ``model`` with ``inputs`` and return its output, whose first dimension is the batch.

    Raises:
        TypeError: When the model returns anything but one tensor.
    """
    outputs = call(model, inputs)
    if not isinstance(outputs, Tensor):
        raise TypeError(f"{type(model).__name__} must return one tensor, got {type(outputs).__name__}")
    return outputs


def tensors(inputs: Inputs) -> tuple[Tensor, ...]:
    """The tensors of ``inputs`` in order."""
    return tuple(inputs.values()) if isinstance(inputs, dict) else inputs


def batch_size_of(inputs: Inputs) -> int:
    """Number of samples: the length of the first dimension, which all inputs share."""
    return tensors(inputs)[0].shape[0]


def input_names(inputs: Inputs) -> tuple[str, ...]:
    """Names of the inputs in an exported graph: keywords, ``input``, or ``input_0``, ``input_1``, ..."""
    if isinstance(inputs, dict):
        return tuple(inputs)
    if len(inputs) == 1:
        return ("input",)
    return tuple(f"input_{index}" for index in range(len(inputs)))


def to_feeds(inputs: Inputs) -> dict[str, np.ndarray]:
    """The inputs as arrays by the names that the exported graph gives them."""
    arrays = (tensor.detach().cpu().numpy() for tensor in tensors(inputs))
    return dict(zip(input_names(inputs), arrays, strict=True))


def mapped(inputs: Inputs, function: Callable[[Tensor], Tensor]) -> Inputs:
    """The inputs with a function of each tensor in its place."""
    if isinstance(inputs, dict):
        return {name: function(tensor) for name, tensor in inputs.items()}
    return tuple(function(tensor) for tensor in inputs)


def take(inputs: Inputs, count: int, start: int = 0) -> Inputs:
    """Up to ``count`` samples of the batch from number ``start`` on."""
    return mapped(inputs, lambda tensor: tensor[start : start + count])


def doubled(inputs: Inputs, dynamic: DynamicAxes) -> Inputs:
    """The batch with everything along its dynamic axes twice, one copy behind the other."""
    tensors_by_name = dict(zip(input_names(inputs), tensors(inputs), strict=True))
    for name, axes in dynamic.items():
        for axis in axes:
            tensors_by_name[name] = torch.cat([tensors_by_name[name]] * 2, axis)
    return tensors_by_name if isinstance(inputs, dict) else tuple(tensors_by_name.values())


def sizes_along(inputs: Inputs, dynamic: DynamicAxes) -> dict[str, int]:
    """The size of each dynamic axis in a batch, by the name of the axis."""
    tensors_by_name = dict(zip(input_names(inputs), tensors(inputs), strict=True))
    return {
        named: tensors_by_name[name].shape[axis]
        for name, axes in dynamic.items()
        for axis, named in axes.items()
    }


def split_up(inputs: Inputs, count: int) -> list[Inputs]:
    """The batch in parts of up to ``count`` samples, in order."""
    return [take(inputs, count, start) for start in range(0, batch_size_of(inputs), count)]
