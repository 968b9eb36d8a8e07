"""Changes to the parts of a model: layers replaced by name, tensors that hold other values for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

VECTOR_WIDTH = 8
"""Number of floats in a vector register; pruned widths and ranks are multiples of it where they can be."""


_WEIGHTS = ("weight", "bias")


def replace_module(model: nn.Module, name: str, replacement: nn.Module) -> nn.Module:
    """Put ``replacement`` in the place of the module called ``name``, and return the model.

    Args:
        model: Model that is changed in place.
        name: Name of a module as in ``named_modules``; the empty name is the model itself, and the
            replacement is then returned in its stead.
        replacement: New module.
    """
    if not name:
        return replacement
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, replacement)
    return model


def shared_layers(model: nn.Module) -> set[str]:
    """Names of modules that own a parameter which also has another name."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return {name.rpartition(".")[0] for group in names.values() if len(group) > 1 for name in group}


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of the module does more than its class's ``forward``."""
    hooks = (
        *(module._forward_pre_hooks, module._forward_hooks),
        *(module._backward_pre_hooks, module._backward_hooks),
    )
    return any(hooks) or "forward" in vars(module)


def has_computed_weights(layer: nn.Module) -> bool:
    """Whether the layer's weight or bias is made of other tensors whenever it is read or the layer called.

    So it is with parametrisations, with the older forms of weight and spectral norm, and with torch's masks.
    """
    own = layer._parameters
    if is_parametrized(layer):
        return True
    return any(name not in own and isinstance(getattr(layer, name, None), Tensor) for name in _WEIGHTS)


@contextmanager
def nothing_frozen(model: nn.Module) -> Iterator[None]:
    """Let every parameter have a gradient inside the block; a frozen layer is not an unimportant one."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


@contextmanager
def temporarily_set(values: Mapping[Tensor, Tensor]) -> Iterator[None]:
    """Let each tensor hold the value given for it inside the block, and its previous value after.

    Args:
        values: New contents of each tensor, of the same shape.
    """
    previous = [(tensor, tensor.data) for tensor in values]
    try:
        for tensor, value in values.items():
            tensor.data = value
        yield
    finally:
        for tensor, data in previous:
            tensor.data = data
