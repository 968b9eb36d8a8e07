"""Whether a graph knows all that reads a channel.

torch-pruning guesses at what it does not know, so each group that it finds is checked before anyone
relies on it: once every layer that is said to read the group's channels ignores them, no output may
change with them any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional

from petra_optuna.nn.function_mode import FunctionMode
from petra_optuna.nn.inputs import Inputs
from petra_optuna.nn.pruning.coupling import ROOT_TYPES

NORMS = (
    functional.layer_norm,
    functional.rms_norm,
    functional.group_norm,
    functional.normalize,
    torch.layer_norm,
    torch.rms_norm,
    torch.group_norm,
)
"""Functions that see all channels at once and mean the same with fewer of them."""


def are_fully_traced(
    graph: tp.DependencyGraph, groups: Sequence[tp.dependency.Group], inputs: Inputs
) -> list[bool]:
    """For each group, whether the layers in it are all that read its channels.

    Half of the channels of every group are hidden from the layers that are said to read them. The
    gradient of the output with respect to those channels must then be zero. Norms over channels count
    as reading each channel for itself: a norm over fewer channels is what pruning means there.

    Args:
        graph: Graph that ``trace`` returned.
        groups: Groups for which ``is_sound`` holds.
        inputs: One batch.
    """
    halves = [_half_group(graph, group) for group in groups]
    probes: dict[nn.Module | nn.Parameter, Tensor] = {}
    with ExitStack() as hooks, torch.enable_grad(), _FixedStatistics():
        for dependency, channels in (item for half in halves for item in half):
            layer = dependency.layer
            if isinstance(layer, nn.Parameter):
                probes[layer] = layer
            elif isinstance(layer, ROOT_TYPES) and not graph.is_out_channel_pruning_fn(dependency.handler):
                hooks.callback(layer.register_forward_pre_hook(masking_hook(layer, channels)).remove)
            elif isinstance(layer, ROOT_TYPES) and layer not in probes:
                probes[layer] = _zeros(layer, graph.get_out_channels(dependency.target)).requires_grad_()
                hooks.callback(layer.register_forward_hook(_probe_hook(probes[layer])).remove)
        outputs = graph.model(inputs)
    if not probes:
        return []
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0)).to(outputs)
    gradients = torch.autograd.grad((outputs * weights).sum(), list(probes.values()), allow_unused=True)
    gradient_of = dict(zip(probes, gradients, strict=True))
    return [
        not any(
            _leaks(gradient_of.get(dependency.layer), dependency.target, channels)
            for dependency, channels in half
            if graph.is_out_channel_pruning_fn(dependency.handler)
        )
        for half in halves
    ]


def layers_read_elsewhere(graph: tp.DependencyGraph, inputs: Inputs) -> set[nn.Module]:
    """Layers with a proxy whose weights the model reads without calling the layer.

    Args:
        graph: Graph that ``trace`` returned.
        inputs: One batch.
    """
    owners = {parameter: layer for layer in graph.model.proxies for parameter in layer.parameters()}
    if not owners:
        return set()
    with torch.enable_grad():
        outputs = graph.model(inputs)
    gradients = torch.autograd.grad(outputs.sum(), list(owners), allow_unused=True)
    return {layer for layer, gradient in zip(owners.values(), gradients, strict=True) if gradient is not None}


def masking_hook(
    layer: nn.Module, channels: list[int]
) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """A forward pre-hook of a Linear or convolution that sets channels of its input to zero.

    Args:
        layer: Layer that will have the hook.
        channels: Channels of its input to hide.
    """
    behind = (1,) * len(getattr(layer, "kernel_size", ()))

    def mask_input(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        mask = args[0].new_ones(args[0].shape[-1 - len(behind)], *behind)
        mask[channels] = 0
        return (args[0] * mask, *args[1:])

    return mask_input


def _half_group(graph: tp.DependencyGraph, group: tp.dependency.Group) -> tp.dependency.Group:
    """The group of a random half of the channels: a regular choice could hide a shift by its period."""
    root, channels = group[0].dep, len(group[0].idxs)
    shuffled = torch.randperm(channels, generator=torch.Generator().manual_seed(channels))
    half = sorted(shuffled[: (channels + 1) // 2].tolist())
    return graph.get_pruning_group(root.layer, root.handler, half)


def _zeros(layer: nn.Module, channels: int) -> Tensor:
    """One zero for each channel, in a shape that broadcasts over the layer's output."""
    return next(layer.parameters()).new_zeros(channels, *(1,) * len(getattr(layer, "kernel_size", ())))


def _probe_hook(probe: Tensor) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
    """A forward hook that adds ``probe``, whose gradient is then that of each channel."""
    return lambda _, args, output: output + probe


def _leaks(gradient: Tensor | None, target: tp.dependency.Node, indices: list[int]) -> bool:
    if gradient is None:
        return False
    dimension = target.pruning_dim if isinstance(target.module, nn.Parameter) else 0
    return bool(gradient.index_select(dimension, torch.tensor(indices, device=gradient.device)).any())


class _FixedStatistics(FunctionMode):
    """Norms keep their values and pass gradients on, channel by channel."""

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if func not in NORMS or not args:
            return result
        return args[0] + (result - args[0]).detach()
