"""Number of parameters and of multiply-accumulates of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from petra_optuna.nn.attention.kernels import products_called
from petra_optuna.nn.inputs import Inputs, batch_size_of, forward
from petra_optuna.nn.low_rank import FactoredRecurrent

Shape = Sequence[int]


def count_parameters(model: nn.Module) -> int:
    """Number of parameters; a tensor that two modules share counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, inputs: Inputs) -> int:
    """Multiply-accumulates of convolutions, matrix products, recurrences and attention for one sample.

    They are counted at the operators that run, so functional calls count as well as modules. A recurrent
    layer costs G h (n + h) for each time step and direction, also where its matrices are factors: these
    are multiplied once, when a file is loaded. Looking up an embedding costs nothing. The model's mode and
    buffers are the same afterwards.

    Args:
        model: Any module that returns one tensor.
        inputs: Batch of any size; the count is for one sample.
    """
    training = [module for module in model.modules() if module.training]
    factored = [module for module in model.modules() if isinstance(module, FactoredRecurrent)]
    products: list[int] = []
    hooks = [module.register_forward_hook(_product_counter(products)) for module in factored]
    model.eval()
    try:
        counter = FlopCounterMode(display=False, custom_mapping=_KERNELS)
        with torch.no_grad(), products_called(), counter:
            forward(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True
    operations: int = counter.get_total_flops()
    return (operations // 2 - sum(products)) // batch_size_of(inputs)


def _product_counter(products: list[int]) -> Callable[..., None]:
    """A forward hook that records the multiply-accumulates of multiplying stored factors."""

    def count(module: nn.Module, *_: Any) -> None:
        assert isinstance(module, FactoredRecurrent)
        for name in module.ranks:
            left, right = module.factors(name)
            products.append(left.numel() * right.shape[1])

    return count


def _recurrent_layer(inputs: Shape, input_weight: Shape, hidden_weight: Shape, *_: Any, **__: Any) -> int:
    """FLOPs of oneDNN's kernel for one layer in one direction: (..., n), (G h, n), (G h, h)."""
    return 2 * math.prod(inputs[:-1]) * (math.prod(input_weight) + math.prod(hidden_weight))


def _recurrent_stack(inputs: Shape, weights: Sequence[Shape], *_: Any, **__: Any) -> int:
    """FLOPs of cuDNN's kernel for all layers and directions; biases are vectors and cost nothing here."""
    return 2 * math.prod(inputs[:-1]) * sum(math.prod(shape) for shape in weights if len(shape) == 2)


_KERNELS = {
    torch.ops.aten.mkldnn_rnn_layer: _recurrent_layer,
    torch.ops.aten._cudnn_rnn: _recurrent_stack,
}
"""FLOPs of recurrent kernels that torch does not count; where it runs products instead, it counts those."""
