"""Running statistics of batch norms, estimated again after the weights before them have changed."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from petra_optuna.nn.inputs import Inputs, batch_size_of, forward


def fixed_norms(model: nn.Module) -> tuple[str, ...]:
    """Names of the norms whose statistics are not to move.

    These are the norms with parameters of which all are frozen, and the norms that somebody has put in
    evaluation mode in a model that is in training mode.

    Args:
        model: Model in the mode in which somebody gave it.
    """
    return tuple(
        name
        for name, module in model.named_modules()
        if isinstance(module, _NormBase)
        and module.track_running_stats
        and (_is_frozen(module) or (model.training and not module.training))
    )


def norms_of(model: nn.Module, names: Collection[str]) -> list[nn.Module]:
    """The norms of these names that the model still has."""
    return [
        module for name, module in model.named_modules() if name in names and isinstance(module, _NormBase)
    ]


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, batches: Iterable[Inputs], fixed: Collection[str] = ()) -> int:
    """Replace running means and variances by their averages over ``batches``, in place.

    Every sample counts the same, whatever the size of its batch. Nothing but batch norms leaves evaluation
    mode, so dropout stays off.

    Args:
        model: Model in evaluation mode, private to the caller.
        batches: Batches to average over; an empty iterable leaves the statistics as they are.
        fixed: Names of norms that keep their statistics.

    Returns:
        Number of layers whose statistics were replaced.
    """
    kept = norms_of(model, fixed)
    layers = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats and module not in kept
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


def _is_frozen(module: nn.Module) -> bool:
    own = list(module.parameters())
    return bool(own) and not any(parameter.requires_grad for parameter in own)
