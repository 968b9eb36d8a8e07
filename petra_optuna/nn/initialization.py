"""Networks before any training: a trained one with new weights, and a new one that looks trained."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from petra_optuna.nn.copying import private_copy
from petra_optuna.nn.randomness import seeded

_SPREAD = 0.01
_METHODS = ("reset_parameters", "_reset_parameters")
"""Methods of torch's modules that draw new weights; attention has the second."""


def reinitialize(model: nn.Module, seed: int) -> nn.Module:
    """Copy a model in eval mode, each parameter drawn anew by its module's ``reset_parameters``.

    The statistics of normalisation layers are reset by the same method. Buffers of modules without it, such
    as mean and deviation of ``Normalize``, belong to the network and stay.

    Args:
        model: Model that gives its structure and such buffers.
        seed: Seed of all new parameters.

    Raises:
        ValueError: When a parameter is frozen or would keep its value, naming it and its module.
    """
    fresh = private_copy(model).eval()
    for name, parameter in fresh.named_parameters():
        if not parameter.requires_grad:
            raise ValueError(f"parameter {name!r} is frozen, so nothing would train new values of it")
        with torch.no_grad():
            # What still holds a NaN at the end was not drawn anew, however it was missed.
            parameter.fill_(math.nan)
    with seeded(seed), torch.no_grad():
        # Children first, as in a constructor: what a module does to the weights of its children must stand.
        for module in reversed(list(fresh.modules())):
            for method in _METHODS:
                if hasattr(module, method):
                    getattr(module, method)()
    for owner, module in fresh.named_modules():
        for name, parameter in module.named_parameters(owner, recurse=False):
            if not parameter.isfinite().all():
                raise ValueError(f"{type(module).__name__} has no reset_parameters that draws {name!r} anew")
    return fresh


def as_if_trained(model: nn.Module, seed: int) -> nn.Module:
    """Copy an untrained model in eval mode, with no value left that only a model before training has.

    Biases of zeros, scales of ones, fresh statistics of norms and parameters that equal each other are what
    an exporter simplifies: the file of an untrained model has fewer operators and tensors than that of the
    same model after training. Every parameter and every statistic gets a little noise.

    Args:
        model: Untrained model.
        seed: Seed of the noise.
    """
    copy = private_copy(model).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in copy.parameters():
            if parameter.is_floating_point():
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=_SPREAD)
        for module in copy.modules():
            if isinstance(module, _NormBase) and module.running_mean is not None:
                assert module.running_var is not None
                shape = module.running_mean.shape
                module.running_mean.add_(torch.randn(shape, generator=generator), alpha=_SPREAD)
                module.running_var.add_(torch.rand(shape, generator=generator), alpha=_SPREAD)
    return copy
