"""Why groups of coupled channels cannot be pruned, in words for the report."""

from __future__ import annotations

from collections.abc import Sequence

import torch_pruning as tp
from torch import nn

from petra_optuna.nn.inputs import Inputs
from petra_optuna.nn.pruning.coupling import ROOT_TYPES, CoupledChannels
from petra_optuna.nn.pruning.coverage import are_fully_traced, layers_read_elsewhere
from petra_optuna.nn.pruning.recurrent import Proxy
from petra_optuna.nn.pruning.tracing import is_sound, reaches_output
from petra_optuna.nn.surgery import has_computed_weights

NOT_FULLY_TRACED = (
    "its channels cannot be traced to all that reads them, through reshaping, slicing or functions"
)


class LayerIndex:
    """Names, proxies and shared weights of the layers of a traced model: what decides on eligibility.

    Attributes:
        proxies: Proxy by each of its own modules.
    """

    def __init__(self, model: nn.Module, graph: tp.DependencyGraph, inputs: Inputs) -> None:
        self._graph = graph
        self._input_anchors = set(graph.model.input_anchors.values())
        self._names: dict[object, str] = {module: name for name, module in model.named_modules()}
        self._owners: dict[object, nn.Module] = {
            parameter: module for module in model.modules() for parameter in module.parameters(recurse=False)
        }
        self._shared = _modules_sharing_parameters(model)
        self._read_elsewhere = layers_read_elsewhere(graph, inputs)
        self._inputs = inputs
        self.proxies: dict[nn.Module, Proxy] = {
            part: proxy for proxy in graph.model.proxies.values() for part in proxy.modules()
        }

    def name_of(self, group: CoupledChannels) -> str | None:
        """Name of the first layer of the model that makes channels of the group."""
        for dependency, _ in group:
            makes_channels = self._graph.is_out_channel_pruning_fn(dependency.handler)
            layer = self._real_layer(dependency.layer)
            if makes_channels and isinstance(dependency.layer, ROOT_TYPES) and layer in self._names:
                return self._names[layer]
        return None

    def name_of_layer(self, layer: nn.Module) -> str:
        """Name of a layer of the model."""
        return self._names[layer]

    def reasons_against(self, groups: Sequence[CoupledChannels]) -> list[str | None]:
        """For each group the reason why it cannot be pruned, or None where it can."""
        reasons = [self._reason_against(group) for group in groups]
        open_indices = [index for index, reason in enumerate(reasons) if reason is None]
        traced = are_fully_traced(self._graph, [groups[index] for index in open_indices], self._inputs)
        for index, is_traced in zip(open_indices, traced, strict=True):
            reasons[index] = None if is_traced else NOT_FULLY_TRACED
        return reasons

    def _reason_against(self, group: CoupledChannels) -> str | None:
        layers = [self._real_layer(dependency.layer) for dependency, _ in group]
        if any(layer in self._input_anchors for layer in layers):
            return "its channels are those of an input of the model"
        if any(isinstance(layer, nn.MultiheadAttention) for layer in layers):
            return "it is coupled to the heads of an attention layer"
        for dependency, _ in group:
            proxy = self.proxies.get(dependency.layer)
            if proxy is not None and proxy.reason_against is not None:
                return f"it is coupled to {self._names[proxy.layer]}: {proxy.reason_against}"
        sound = is_sound(self._graph, group)
        if reaches_output(self._graph, group):
            return "its channels are the output of the model" if sound else NOT_FULLY_TRACED
        for layer in layers:
            if isinstance(layer, nn.Module) and has_computed_weights(layer):
                return f"the weights of {self._names[layer]} are computed from other tensors"
        if any(layer in self._shared for layer in layers):
            return "it is coupled to a layer that shares its weight"
        if any(layer in self._read_elsewhere for layer in layers):
            return "it is coupled to a layer whose weight is read outside of it"
        for layer in layers:
            owner = self._owners.get(layer)
            if owner is not None and type(owner).__module__.startswith("torch.nn."):
                return f"it is coupled to the weights of {self._names[owner]} ({type(owner).__name__})"
        return None if sound else NOT_FULLY_TRACED

    def _real_layer(self, layer: nn.Module | nn.Parameter) -> nn.Module | nn.Parameter:
        """The layer itself, or the one whose proxy it belongs to."""
        proxy = self.proxies.get(layer) if isinstance(layer, nn.Module) else None
        return layer if proxy is None else proxy.layer


def _modules_sharing_parameters(model: nn.Module) -> set[nn.Module]:
    """Different modules that own the same parameter."""
    owners: dict[nn.Parameter, set[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter, set()).add(module)
    return {module for modules in owners.values() if len(modules) > 1 for module in modules}
