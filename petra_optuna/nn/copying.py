"""Copies of models as people bring them, and the plain form of weights that are computed.

torch refuses to copy a tensor that autograd made. The older forms of weight and spectral norm and torch's
masks keep such a tensor as the weight that they compute before each call, and so does a model that notes what
its forward pass has seen.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from petra_optuna.nn.containers import tensors_in


def private_copy(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy of a model; tensors that autograd made and that its attributes hold become values.

    Args:
        model: Model to copy.
        memo: That of ``copy.deepcopy``: afterwards it maps the identity of each part to its copy.
    """
    memo = {} if memo is None else memo
    for module in model.modules():
        for tensor in tensors_in([value for name, value in vars(module).items() if name != "_modules"]):
            if not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()
    return copy.deepcopy(model, memo)


@torch.no_grad()
def store_computed_weights(model: nn.Module) -> None:
    """Let modules hold as parameters the weights that they compute of other tensors, in place.

    In evaluation mode the model computes the same afterwards. That is the form to write to a file: there
    nothing is trained, and a batch norm is folded into a weight that is stored.
    """
    store_hooked_weights(model)
    for module in model.modules():
        if is_parametrized(module):
            _store_parametrized(module)


@torch.no_grad()
def store_hooked_weights(model: nn.Module) -> list[str]:
    """Do the same for the older forms of weight and spectral norm and for torch's masks alone.

    Returns:
        What was stored, for example ``WeightNorm of module 'encoder.0'``.
    """
    stored = []
    for name, module in model.named_modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
            elif isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
            else:
                continue
            _put_weight_first(module)
            stored.append(f"{type(hook).__name__} of module {name!r}")
    return stored


def _store_parametrized(module: nn.Module) -> None:
    """Torch's own removal would take the weight from every copy of the module: they share a class."""
    values = {name: getattr(module, name).clone() for name in module.parametrizations}  # type: ignore[union-attr]
    plain_class = type_before_parametrizations(module)
    del module.parametrizations
    module.__class__ = plain_class
    for name, value in values.items():
        setattr(module, name, nn.Parameter(value))
    _put_weight_first(module)


def _put_weight_first(module: nn.Module) -> None:
    """The order of the layer's own class, in which a checkpoint builds it."""
    if "bias" in module._parameters:
        module._parameters["bias"] = module._parameters.pop("bias")
