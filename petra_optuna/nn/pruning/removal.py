"""Removing channels, and making sure afterwards that nothing else has changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional

from petra_optuna.nn.function_mode import FunctionMode
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.pruning.coverage import NORMS, ignoring
from petra_optuna.nn.pruning.recurrent import Proxy, RecurrentStandIn
from petra_optuna.nn.pruning.tracing import ROOTS
from petra_optuna.nn.randomness import seeded
from petra_optuna.nn.surgery import temporarily_set


@dataclasses.dataclass(frozen=True)
class Removal:
    """Channels that layers no longer read, by the layer's name.

    Attributes:
        reads: Input channels, in the numbering before, that Linear and convolutions have lost.
        proxies: What stood for recurrent layers and embeddings; they know what is left.
    """

    reads: Mapping[str, list[int]]
    proxies: Mapping[str, Proxy]


def remove(
    model: nn.Module,
    graph: tp.DependencyGraph,
    wanted: Iterable[tuple[tp.dependency.Group, list[int]]],
) -> Removal:
    """Remove channels, in place, with everything that is coupled to them.

    All of them leave at once: the graph's numbers for slices are wrong after a first removal. LayerNorms
    are cut here, since torch-pruning 1.6 keeps their weights in the order of a set.

    Args:
        model: That of the graph, without its anchors.
        graph: From ``trace``.
        wanted: Groups, and channels of their roots.
    """
    whole = tp.dependency.Group()
    whole._DG = graph
    names = {module: name for name, module in model.named_modules()}
    reads: dict[str, list[int]] = {}
    for dependency, channels in _merged(graph, wanted):
        layer = dependency.layer
        if isinstance(layer, nn.LayerNorm):
            _shorten(layer, channels)
            continue
        whole.add_dep(dependency, channels)
        reading = isinstance(layer, ROOTS) and not graph.is_out_channel_pruning_fn(dependency.handler)
        if reading and layer in names:
            reads[names[layer]] = channels
    whole.prune(record_history=False)
    for proxy in graph.model.proxies.values():
        proxy.cut()
    return Removal(reads, {names[layer]: proxy for layer, proxy in graph.model.proxies.items()})


def difference(pruned: nn.Module, original: nn.Module, inputs: Inputs, removal: Removal) -> str | None:
    """What else pruning has changed, or None.

    A model without some channels must compute what the original does where every layer ignores them.
    It does not where its forward fixes a width, for example in a slice. Norms over channels only scale
    in both, because a norm over fewer channels is another norm.

    Args:
        pruned: In evaluation mode.
        original: The same before; its weights are the same afterwards.
        inputs: A batch.
        removal: What was removed.
    """
    expected, scalings = _silenced(original, inputs, removal)
    try:
        with torch.no_grad(), seeded(0), _Scalings(scalings):
            outputs = forward(pruned, inputs)
        with torch.no_grad(), seeded(0):
            forward(pruned, inputs)
    except (IndexError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        return f"the model does not run with fewer channels: {reason}"
    if outputs.shape != expected.shape:
        return f"pruning changed the output's shape from {tuple(expected.shape)} to {tuple(outputs.shape)}"
    tolerance = torch.finfo(outputs.dtype).eps ** 0.5
    scale = float(expected.abs().max())
    if torch.allclose(outputs, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
        return None
    return "the model's forward fixes a width: with fewer channels it computes something else"


def _silenced(original: nn.Module, inputs: Inputs, removal: Removal) -> tuple[Tensor, list[float]]:
    """The output where layers ignore what was removed, and the numbers that took the place of norms."""
    zeroed: dict[Tensor, Tensor] = {}
    with ExitStack() as changes, torch.no_grad(), seeded(0), _Scalings() as norms:
        for name, proxy in removal.proxies.items():
            if isinstance(proxy, RecurrentStandIn):
                zeroed |= proxy.silenced(original.get_submodule(name))
        changes.enter_context(temporarily_set(zeroed))
        for name, channels in removal.reads.items():
            layer = original.get_submodule(name)
            changes.callback(layer.register_forward_pre_hook(ignoring(layer, channels)).remove)
        return forward(original, inputs), norms.found


def _merged(
    graph: tp.DependencyGraph, wanted: Iterable[tuple[tp.dependency.Group, list[int]]]
) -> Iterator[tuple[tp.dependency.Dependency, list[int]]]:
    """For each layer and side of it all channels that leave."""
    merged: dict[tuple[object, object], tuple[tp.dependency.Dependency, set[int]]] = {}
    for group, channels in wanted:
        root = group[0].dep
        for dependency, coupled in graph.get_pruning_group(root.layer, root.handler, channels):
            place = (dependency.target, dependency.handler)
            merged.setdefault(place, (dependency, set()))[1].update(coupled)
    for dependency, leaving in merged.values():
        yield dependency, sorted(leaving)


@torch.no_grad()
def _shorten(norm: nn.LayerNorm, channels: list[int]) -> None:
    """Remove positions along the last dimension."""
    kept = sorted(set(range(norm.normalized_shape[-1])) - set(channels))
    for name, parameter in list(norm.named_parameters()):
        setattr(norm, name, nn.Parameter(parameter[..., kept], requires_grad=parameter.requires_grad))
    norm.normalized_shape = (*norm.normalized_shape[:-1], len(kept))


class _Scalings(FunctionMode):
    """Norms multiply by one number, which keeps values in their range; embeddings do not renormalise.

    Args:
        known: The numbers in the order of calls, where another run has found them.
    """

    def __init__(self, known: Sequence[float] | None = None) -> None:
        super().__init__()
        self._known = None if known is None else iter(known)
        self.found: list[float] = []

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func is functional.embedding and len(args) > 1:
            return func(*args[:2])
        if func not in NORMS or not args:
            return func(*args, **kwargs)
        if self._known is None:
            before, after = float(args[0].norm()), float(func(*args, **kwargs).norm())
            self.found.append(after / before if before else 1.0)
            return args[0] * self.found[-1]
        return args[0] * next(self._known, 1.0)
