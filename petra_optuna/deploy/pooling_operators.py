"""Maximum pooling over time as an operator of our own while a model with dynamic axes is exported.

PyTorch's ``max_pool1d`` takes the length for a constant when it is traced. This operator gives the shape for
any length and is translated to the same ONNX graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from onnxscript.function_libs.torch_lib.ops.nn import aten_max_pool1d
from torch import Tensor
from torch.nn import functional

from petra_optuna.nn.function_mode import FunctionMode

Size = int | Sequence[int]

_LIBRARY = torch.library.Library("petra_optuna", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "max_pool1d(Tensor input, int[1] kernel_size, int[1] stride, int[1] padding, int[1] dilation, "
    "bool ceil_mode) -> Tensor"
)


def _shape(
    inputs: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> Tensor:
    step = stride[0] if stride else kernel_size[0]
    room = inputs.shape[-1] + 2 * padding[0] - dilation[0] * (kernel_size[0] - 1) - 1
    return inputs.new_empty(*inputs.shape[:-1], (room + (step - 1 if ceil_mode else 0)) // step + 1)


_LIBRARY.impl("max_pool1d", _shape, "Meta")  # type: ignore[no-untyped-call]

POOLING_TRANSLATIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.petra_optuna.max_pool1d.default: aten_max_pool1d
}
"""Operator -> function by which the exporter translates it to ONNX."""


class PoolingOperators(FunctionMode):
    """Replaces ``max_pool1d`` of modules and functions by the operator above within a ``with`` block."""

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Redirect a call that wants no indices."""
        if func not in (functional.max_pool1d, torch.max_pool1d) or kwargs.get("return_indices"):
            return func(*args, **kwargs)
        return _pooled(*args, **{name: value for name, value in kwargs.items() if name != "return_indices"})


def _pooled(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Any:
    """The operator's call, for arguments named as PyTorch names them."""
    sizes = (kernel_size, stride or (), padding, dilation)
    as_lists = ([size] if isinstance(size, int) else list(size) for size in sizes)
    return torch.ops.petra_optuna.max_pool1d(input, *as_lists, ceil_mode)
