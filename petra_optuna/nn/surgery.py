"""Finding and replacing layers by name."""

from __future__ import annotations

from torch import nn


def replace_module(model: nn.Module, name: str, replacement: nn.Module) -> nn.Module:
    """Put ``replacement`` where ``name`` is, in place, and return the model.

    Args:
        model: The whole.
        name: As ``named_modules`` gives it; the empty name is the whole, which is then replaced.
        replacement: The new part.
    """
    if not name:
        return replacement
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, replacement)
    return model


def shared_layers(model: nn.Module) -> set[str]:
    """Names of modules that own a parameter which another name reaches as well."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return {name.rpartition(".")[0] for group in names.values() if len(group) > 1 for name in group}
