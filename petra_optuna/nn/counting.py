"""Parameters and multiply-accumulates of a model, counted."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from petra_optuna.nn.inputs import Inputs, batch_size_of, forward


def count_parameters(model: nn.Module) -> int:
    """Number of weights; a tensor that two modules share counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, inputs: Inputs) -> int:
    """Multiply-accumulates of convolutions, matrix products and attention for one sample.

    Counted at the operators that run, so functional calls count as well as modules. The model's
    mode and buffers are the same afterwards.

    Args:
        model: Any module that returns one tensor.
        inputs: A batch of any size; the count is per sample.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            forward(model, inputs)
    finally:
        for module in training:
            module.training = True
    operations: int = counter.get_total_flops()
    return operations // (2 * batch_size_of(inputs))
