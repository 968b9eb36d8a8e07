"""Changes to the parts of a model: layers replaced by name, tensors that hold other values for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

VECTOR_WIDTH = 8
"""Number of floats in a vector register; pruned widths and ranks are multiples of it where they can be."""


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
