"""Why groups of coupled channels cannot be pruned, in words for the report."""

from __future__ import annotations

from collections.abc import Sequence

import torch_pruning as tp
from torch import nn

from petra_optuna.nn.inputs import Inputs
from petra_optuna.nn.pruning.coverage import are_fully_traced, read_elsewhere
from petra_optuna.nn.pruning.recurrent import Proxy
from petra_optuna.nn.pruning.tracing import ROOTS, is_sound, reaches_output

NOT_FULLY_TRACED = (
    "its channels cannot be traced to all that reads them, through reshaping, slicing or functions"
)


class LayerIndex:
    """Names, stand-ins and sharing of the layers of a traced model.

    Attributes:
        proxies: By every part of them.
    """

    def __init__(self, model: nn.Module, graph: tp.DependencyGraph, inputs: Inputs) -> None:
        self._graph = graph
        self._inputs = set(graph.model.inputs.values())
        self._names: dict[object, str] = {module: name for name, module in model.named_modules()}
        self._owners: dict[object, nn.Module] = {
            parameter: module for module in model.modules() for parameter in module.parameters(recurse=False)
        }
        self._shared = _sharing_modules(model)
        self._read_elsewhere = read_elsewhere(graph, inputs)
        self._batch = inputs
        self.proxies: dict[nn.Module, Proxy] = {
            part: proxy for proxy in graph.model.proxies.values() for part in proxy.modules()
        }

    def name_of(self, group: tp.dependency.Group) -> str | None:
        """Name of the first layer of the model that makes channels of the group."""
        for dependency, _ in group:
            makes = self._graph.is_out_channel_pruning_fn(dependency.handler)
            layer = self._real(dependency.layer)
            if makes and isinstance(dependency.layer, ROOTS) and layer in self._names:
                return self._names[layer]
        return None

    def name_of_layer(self, layer: nn.Module) -> str:
        """Name of a layer of the model."""
        return self._names[layer]

    def refusals(self, groups: Sequence[tp.dependency.Group]) -> list[str | None]:
        """For each group why it cannot be pruned, or None where it can."""
        found = [self._refusal(group) for group in groups]
        rest = [place for place, refusal in enumerate(found) if refusal is None]
        followed = are_fully_traced(self._graph, [groups[place] for place in rest], self._batch)
        for place, is_followed in zip(rest, followed, strict=True):
            found[place] = None if is_followed else NOT_FULLY_TRACED
        return found

    def _refusal(self, group: tp.dependency.Group) -> str | None:
        layers = [self._real(dependency.layer) for dependency, _ in group]
        if any(layer in self._inputs for layer in layers):
            return "its channels are those of an input of the model"
        if any(isinstance(layer, nn.MultiheadAttention) for layer in layers):
            return "it is coupled to the heads of an attention layer"
        for dependency, _ in group:
            proxy = self.proxies.get(dependency.layer)
            if proxy is not None and proxy.refusal is not None:
                return f"it is coupled to {self._names[proxy.layer]}: {proxy.refusal}"
        sound = is_sound(self._graph, group)
        if reaches_output(self._graph, group):
            return "its channels are the output of the model" if sound else NOT_FULLY_TRACED
        if any(layer in self._shared for layer in layers):
            return "it is coupled to a layer that shares its weight"
        if any(layer in self._read_elsewhere for layer in layers):
            return "it is coupled to a layer whose weight is read outside of it"
        for layer in layers:
            owner = self._owners.get(layer)
            if owner is not None and type(owner).__module__.startswith("torch.nn."):
                return f"it is coupled to the weights of {self._names[owner]} ({type(owner).__name__})"
        return None if sound else NOT_FULLY_TRACED

    def _real(self, layer: nn.Module | nn.Parameter) -> nn.Module | nn.Parameter:
        """The layer itself, or the one that it stands for."""
        proxy = self.proxies.get(layer) if isinstance(layer, nn.Module) else None
        return layer if proxy is None else proxy.layer


def _sharing_modules(model: nn.Module) -> set[nn.Module]:
    """Different modules that own the same parameter."""
    owners: dict[nn.Parameter, set[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter, set()).add(module)
    return {module for modules in owners.values() if len(modules) > 1 for module in modules}
