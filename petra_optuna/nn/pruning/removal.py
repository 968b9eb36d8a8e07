"""Removal of channels, and the check afterwards that nothing else has changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.instancenorm import _InstanceNorm

from petra_optuna.errors import FOREIGN_ERRORS, one_line
from petra_optuna.nn.agreement import agree
from petra_optuna.nn.function_mode import FunctionMode
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.outputs import whole_outputs
from petra_optuna.nn.pruning.attention import AttentionProxy
from petra_optuna.nn.pruning.coupling import ROOT_TYPES
from petra_optuna.nn.pruning.coverage import NORMS, masking_hook
from petra_optuna.nn.pruning.heads import Heads
from petra_optuna.nn.pruning.recurrent import Proxy, RecurrentProxy
from petra_optuna.nn.randomness import seeded
from petra_optuna.nn.surgery import temporarily_set


@dataclasses.dataclass(frozen=True)
class Removal:
    """What pruning removed: channels that layers no longer read.

    Attributes:
        lost_inputs: Input channels that each Linear or convolution has lost, in the numbering before, by
            the layer's name.
        proxies: Proxies of recurrent layers, embeddings and attention by the layer's name; they know what
            remains.
    """

    lost_inputs: Mapping[str, list[int]]
    proxies: Mapping[str, Proxy]


def remove(
    model: nn.Module,
    graph: tp.DependencyGraph,
    chosen: Iterable[tuple[tp.dependency.Group, list[int]]],
    heads: Iterable[tuple[Heads, list[int]]] = (),
) -> Removal:
    """Remove channels and heads, in place, with everything that is coupled to them.

    All of them leave at once: the graph's numbers for slices are wrong after a first removal. LayerNorms
    and instance norms are shortened here: torch-pruning 1.6 keeps the weights of the former in the order of a
    set, and leaves the statistics of the latter as they are.

    Args:
        model: Model that was traced, without the anchors of the graph.
        graph: Graph that ``trace`` returned.
        chosen: Groups, each with the channels of its root to remove.
        heads: Heads of attention modules, each with the numbers of those to remove.
    """
    merged = tp.dependency.Group()
    merged._DG = graph
    names = {module: name for name, module in model.named_modules()}
    lost_inputs: dict[str, list[int]] = {}
    for dependency, channels in _merge_by_layer(graph, chosen):
        layer = dependency.layer
        if isinstance(layer, nn.LayerNorm):
            _shorten_norm(layer, channels)
            continue
        if isinstance(layer, _InstanceNorm):
            _shorten_instance_norm(layer, channels)
            continue
        merged.add_dep(dependency, channels)
        reads = isinstance(layer, ROOT_TYPES) and not graph.is_out_channel_pruning_fn(dependency.handler)
        if reads and layer in names:
            lost_inputs[names[layer]] = channels
    merged.prune(record_history=False)
    for proxy in graph.model.proxies.values():
        proxy.prune_layer()
    for of_module, numbers in heads:
        of_module.remove(numbers)
        lost_inputs[of_module.output_name] = of_module.columns(numbers)
    return Removal(lost_inputs, {names[layer]: proxy for layer, proxy in graph.model.proxies.items()})


def difference(pruned: nn.Module, original: nn.Module, inputs: Inputs, removal: Removal) -> str | None:
    """What pruning has changed beside the removal, in words, or None where it changed nothing else.

    A model without some channels must compute what the original does where every layer ignores them.
    It does not where its forward fixes a width, for example in a slice. Norms over channels only scale
    in both, because a norm over fewer channels is another norm.

    Args:
        pruned: Pruned model in evaluation mode.
        original: The model before pruning; its weights are the same afterwards.
        inputs: One batch.
        removal: Removal that made ``pruned`` of the original.
    """
    expected, scales = _run_masked(original, inputs, removal)
    try:
        with torch.no_grad(), seeded(0), _NormsAsScales(scales):
            outputs = forward(pruned, inputs)
        with torch.no_grad(), seeded(0):
            whole_outputs(pruned, inputs)
    except FOREIGN_ERRORS as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        return f"the model does not run with fewer channels ({reason})"
    if outputs.shape != expected.shape:
        return f"pruning changed the output's shape from {tuple(expected.shape)} to {tuple(outputs.shape)}"
    if agree(outputs, expected):
        return None
    return "the model's forward fixes a width: with fewer channels it computes something else"


def _run_masked(original: nn.Module, inputs: Inputs, removal: Removal) -> tuple[Tensor, list[float]]:
    """The output where layers ignore what was removed, and the scales that took the place of norms."""
    masked: dict[Tensor, Tensor] = {}
    with ExitStack() as changes, torch.no_grad(), seeded(0), _NormsAsScales() as norms:
        for name, proxy in removal.proxies.items():
            if isinstance(proxy, RecurrentProxy | AttentionProxy):
                masked |= proxy.masked_weights(original.get_submodule(name))
        changes.enter_context(temporarily_set(masked))
        for name, channels in removal.lost_inputs.items():
            layer = original.get_submodule(name)
            changes.callback(layer.register_forward_pre_hook(masking_hook(layer, channels)).remove)
        return forward(original, inputs), norms.scales


def _merge_by_layer(
    graph: tp.DependencyGraph, chosen: Iterable[tuple[tp.dependency.Group, list[int]]]
) -> Iterator[tuple[tp.dependency.Dependency, list[int]]]:
    """For each layer, and its input and output side apart, all channels that leave."""
    merged: dict[tuple[object, object], tuple[tp.dependency.Dependency, set[int]]] = {}
    for group, channels in chosen:
        root = group[0].dep
        for dependency, coupled in graph.get_pruning_group(root.layer, root.handler, channels):
            layer_side = (dependency.target, dependency.handler)
            merged.setdefault(layer_side, (dependency, set()))[1].update(coupled)
    for dependency, leaving in merged.values():
        yield dependency, sorted(leaving)


@torch.no_grad()
def _shorten_norm(norm: nn.LayerNorm, channels: list[int]) -> None:
    """Remove positions along the last dimension, in place."""
    kept = sorted(set(range(norm.normalized_shape[-1])) - set(channels))
    for name, parameter in list(norm.named_parameters()):
        setattr(norm, name, nn.Parameter(parameter[..., kept], requires_grad=parameter.requires_grad))
    norm.normalized_shape = (*norm.normalized_shape[:-1], len(kept))


@torch.no_grad()
def _shorten_instance_norm(norm: _InstanceNorm, channels: list[int]) -> None:
    """Remove channels with their statistics, in place."""
    kept = sorted(set(range(norm.num_features)) - set(channels))
    for name, parameter in list(norm.named_parameters()):
        setattr(norm, name, nn.Parameter(parameter[kept], requires_grad=parameter.requires_grad))
    for name, buffer in list(norm.named_buffers()):
        if buffer.dim():
            setattr(norm, name, buffer[kept])
    norm.num_features = len(kept)


class _NormsAsScales(FunctionMode):
    """Norms multiply by one number, which keeps values in their range; embeddings do not renormalise.

    Args:
        given: Scales in the order of calls, where another run has measured them.

    Attributes:
        scales: Scales that were measured, in the order of calls.
    """

    def __init__(self, given: Sequence[float] | None = None) -> None:
        super().__init__()
        self._given = None if given is None else iter(given)
        self.scales: list[float] = []

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func is functional.embedding and len(args) > 1:
            return func(*args[:2])
        if func not in NORMS or not args:
            return func(*args, **kwargs)
        if self._given is None:
            before, after = float(args[0].norm()), float(func(*args, **kwargs).norm())
            self.scales.append(after / before if before else 1.0)
            return args[0] * self.scales[-1]
        return args[0] * next(self._given, 1.0)
