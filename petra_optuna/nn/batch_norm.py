"""Running statistics of batch norms, estimated again after the weights before them have changed."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from petra_optuna.nn.inputs import Inputs, batch_size_of, forward


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, batches: Iterable[Inputs]) -> int:
    """Replace running means and variances by their averages over ``batches``, in place.

    Every sample counts the same, whatever the size of its batch. Nothing but batch norms leaves evaluation
    mode, so dropout stays off.

    Args:
        model: Model in evaluation mode, private to the caller.
        batches: Batches to average over; an empty iterable leaves the statistics as they are.

    Returns:
        Number of layers whose statistics were replaced.
    """
    layers = [
        module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    batches = list(batches)
    if not layers or not batches:
        return 0
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
    try:
        seen = 0
        for inputs in batches:
            count = batch_size_of(inputs)
            seen += count
            for layer in layers:
                layer.momentum = count / seen
            forward(model, inputs)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()
    return len(layers)
