"""Inputs of a model: a tuple of positional or a dict of keyword tensors, batch first."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from petra_optuna.nn.attention.kernels import layers_called

Inputs = tuple[Tensor, ...] | dict[str, Tensor]


def forward(model: nn.Module, inputs: Inputs) -> Tensor:
    """Call ``model`` with ``inputs`` and return its output, whose first dimension is the batch.

    Every layer is called: PyTorch's fused form of attention layers is off.

    Raises:
        TypeError: When the model returns anything but one tensor.
    """
    with layers_called():
        outputs = model(**inputs) if isinstance(inputs, dict) else model(*inputs)
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


def take(inputs: Inputs, count: int, start: int = 0) -> Inputs:
    """Up to ``count`` samples of the batch from number ``start`` on."""
    kept = slice(start, start + count)
    if isinstance(inputs, dict):
        return {name: tensor[kept] for name, tensor in inputs.items()}
    return tuple(tensor[kept] for tensor in inputs)


def split_up(inputs: Inputs, count: int) -> list[Inputs]:
    """The batch in parts of up to ``count`` samples, in order."""
    return [take(inputs, count, start) for start in range(0, batch_size_of(inputs), count)]
