"""Which channels of a model are coupled: torch-pruning's dependency graph of a traceable form of the model.

The traceable form has anchors where the graph would guess, and proxies for layers that it cannot follow.
An anchor is a layer that stands where torch-pruning's graph would otherwise guess a number of channels:
behind every input, and before and behind every concatenation. Without them a concatenation with a raw
input, with a flattened tensor or before a flattening is given wrong offsets (other channels would be
removed than those that were scored), and a sum with a raw input is pruned though the input cannot follow.
Some calls are made in another form that the graph follows, with the same values: concatenation along the
last of three dimensions or along positions, flattening of sequences, and picking from stacked tensors. All
of it is part of the trace only; the model stays as it is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional

from petra_optuna.errors import FOREIGN_ERRORS, OperationFailed, one_line
from petra_optuna.nn.function_mode import FunctionMode
from petra_optuna.nn.inputs import Inputs
from petra_optuna.nn.outputs import ChosenOutput, all_tensors, choose, whole_outputs
from petra_optuna.nn.pruning.recurrent import Proxy, proxy_for

_TRACING_ERRORS = (AssertionError, *FOREIGN_ERRORS)
"""What torch-pruning raises, in place of one error of its own, on a model that it cannot trace."""
ROOT_TYPES = (tp.ops.TORCH_CONV, tp.ops.TORCH_LINEAR, tp.ops.TORCH_EMBED)
"""Layers that make channels."""
_CONCATENATIONS = (torch.cat, torch.concat, torch.concatenate)
_FLATTENINGS = (torch.flatten, torch.reshape, Tensor.flatten, Tensor.reshape, Tensor.view)
_UNSTACKINGS = (torch.unbind, Tensor.unbind)
_TRANSPOSITIONS = (torch.permute, torch.transpose, Tensor.permute, Tensor.transpose)
LONGEST_FLATTENED = 128
"""Steps of a sequence that is flattened; each becomes an anchor, and the graph is quadratic in them."""


def trace(model: nn.Module, inputs: Inputs) -> tuple[tp.DependencyGraph, list[tp.dependency.Group]]:
    """The graph, whose ``model`` is a ``TraceableModel``, and its groups of coupled channels.

    Groups of hidden units come first, narrow ones before wide ones.

    Args:
        model: Model in evaluation mode; its weights require gradients, because the trace follows autograd.
        inputs: One batch.

    Raises:
        OperationFailed: When torch-pruning cannot follow the model.
    """
    traceable = TraceableModel(model, inputs).eval()
    with torch.no_grad():
        traceable(inputs)
    try:
        with torch.enable_grad():
            graph = tp.DependencyGraph().build_dependency(
                traceable,
                inputs,
                forward_fn=lambda module, batch: module.every_output(batch),
                ignored_layers=list(traceable.proxies),
                verbose=False,
            )
        # torch-pruning gives up on every concatenation behind a parameter of three dimensions.
        for node in graph.module2node.values():
            node.enable_index_mapping = True
        units = {
            part: part.out_features
            for part in traceable.proxy_modules.modules()
            if isinstance(part, nn.Linear)
        }
        ordered = sorted(graph.module2node.items(), key=lambda item: units.get(item[0], math.inf))
        graph.module2node = dict(ordered)
        return graph, list(graph.get_all_groups(root_module_types=ROOT_TYPES))
    except _TRACING_ERRORS as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise OperationFailed(f"the channels of the model cannot be traced ({reason})") from error


def is_sound(graph: tp.DependencyGraph, group: tp.dependency.Group) -> bool:
    """Whether every index of the group exists and every concatenation in it is understood."""
    for dependency, indices in group:
        target = dependency.target
        if target.type == tp.ops.OPTYPE.CONCAT and target.module.offsets is None:
            return False
        outwards = graph.is_out_channel_pruning_fn(dependency.handler)
        channels = graph.get_out_channels(target) if outwards else graph.get_in_channels(target)
        if channels is not None and max(indices) >= channels:
            return False
    return True


def reaches_output(graph: tp.DependencyGraph, group: tp.dependency.Group) -> bool:
    """Whether the channels of the group are channels of the model's output."""
    return any(
        not dependency.target.outputs and graph.is_out_channel_pruning_fn(dependency.handler)
        for dependency, _ in group
    )


class TraceableModel(nn.Module):
    """A model with anchors and proxies. The first call finds its concatenations.

    Attributes:
        temporal: Whether the model has a Conv1d, so that channels are the second of three dimensions.
        input_anchors: Anchors behind the inputs.
        concatenation_anchors: Anchors before and behind concatenations, in the order of the calls.
        proxies: Proxy of each layer that the graph cannot follow.
        proxy_modules: The proxies as a part of this module.
        model: The model itself.
    """

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        named = inputs if isinstance(inputs, dict) else dict(enumerate(inputs))
        self.temporal = any(isinstance(module, nn.Conv1d) for module in model.modules())
        self.input_anchors = nn.ModuleDict(
            {f"input_{key}": _input_anchor(tensor, self.temporal) for key, tensor in named.items()}
        )
        self.concatenation_anchors = nn.ModuleList()
        proxies = {module: proxy_for(module) for module in model.modules()}
        self.proxies: dict[nn.Module, Proxy] = {
            module: proxy for module, proxy in proxies.items() if proxy is not None
        }
        self.proxy_modules = nn.ModuleList(self.proxies.values())
        self.model = model

    def forward(self, inputs: Inputs) -> Tensor:
        """The model's output; only its gradient functions matter."""
        outputs = self.whole(inputs)
        return choose(outputs, self.model.output if isinstance(self.model, ChosenOutput) else 0)

    def every_output(self, inputs: Inputs) -> list[Tensor]:
        """All tensors that the model returns, since what makes one that is not chosen reads channels too."""
        return list(all_tensors(self.whole(inputs)).values())

    def whole(self, inputs: Inputs) -> Any:
        """All that the model returns."""
        with _proxies_called(self.proxies), _TraceableCalls(self.concatenation_anchors, self.temporal):
            if isinstance(inputs, dict):
                anchored: Inputs = {key: self._anchor(key, value) for key, value in inputs.items()}
            else:
                anchored = tuple(self._anchor(key, value) for key, value in enumerate(inputs))
            return whole_outputs(self.model, anchored)

    def _anchor(self, key: int | str, tensor: Tensor) -> Tensor:
        return self.input_anchors[f"input_{key}"](tensor)  # type: ignore[no-any-return]


@contextmanager
def _proxies_called(proxies: Mapping[nn.Module, Proxy]) -> Iterator[None]:
    """Call each proxy for its layer inside the block; the layer keeps its place and attributes."""
    replaced = {layer: vars(layer).get("forward") for layer in proxies}
    for layer, proxy in proxies.items():
        proxy.calls = 0
        vars(layer)["forward"] = proxy
    try:
        yield
    finally:
        for layer, forward_of_instance in replaced.items():
            if forward_of_instance is None:
                del vars(layer)["forward"]
            else:
                vars(layer)["forward"] = forward_of_instance


class _TraceableCalls(FunctionMode):
    """Makes calls that the graph would misread in a form that it follows, between anchors.

    Channels are taken to be the second of two or four dimensions and the last of three, or the second
    of three in a model with Conv1d.
    """

    def __init__(self, anchors: nn.ModuleList, temporal: bool) -> None:
        super().__init__()
        self._anchors = anchors
        self._temporal = temporal
        self._used = 0
        self._stacks: dict[int, _Stack] = {}

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in _CONCATENATIONS:
            return self._concatenate(func, args, kwargs)
        result = func(*args, **kwargs)
        stack = self._stacks.get(id(args[0])) if args and not kwargs else None
        if func is torch.stack:
            parts = args[0] if args else kwargs["tensors"]
            dimension = args[1] if len(args) > 1 else kwargs.get("dim", 0)
            self._remember(_Stack(result, list(parts), dimension % result.ndim))
        elif func in _FLATTENINGS and result.ndim == 2:
            result = self._flatten(args[0] if args else kwargs["input"], result, stack)
        elif stack is not None:
            result = _pick(stack, func, args[1:], result)
            if isinstance(result, _Stack):
                self._remember(result)
                result = result.whole
        return result

    def _remember(self, stack: _Stack) -> None:
        self._stacks[id(stack.whole)] = stack

    def _concatenate(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensors = args[0] if args else kwargs["tensors"]
        rank = tensors[0].ndim
        dimension = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
        alike = all(tensor.ndim == rank and tensor.is_floating_point() for tensor in tensors)
        if not 2 <= rank <= 4 or not alike:
            return func(*args, **kwargs)
        dimension %= rank
        if rank == 3 and dimension == 2:
            rows = [tensor.reshape(-1, tensor.shape[2]) for tensor in tensors]
            return self._join(rows).reshape(*tensors[0].shape[:2], -1)
        if dimension == 1 and (rank != 3 or self._temporal):
            return self._join(tensors)
        return _concatenate_as_sum(tensors, dimension)

    def _flatten(self, tensor: Tensor, result: Tensor, stack: _Stack | None) -> Tensor:
        """A sequence (B, T, C) becomes (B, T C) step by step; a series (B, C, L) as if it were an image."""
        if tensor.ndim != 3 or not tensor.is_floating_point() or result.shape[0] != tensor.shape[0]:
            return result
        if stack is not None and stack.dimension == 1:
            return self._join(stack.parts)
        if self._temporal:
            return tensor.unsqueeze(-1).flatten(1)
        if not 1 < tensor.shape[1] <= LONGEST_FLATTENED:
            return result
        return self._join([tensor[:, step] for step in range(tensor.shape[1])])

    def _join(self, tensors: list[Tensor]) -> Tensor:
        return self._anchor(torch.cat([self._anchor(tensor) for tensor in tensors], 1))

    def _anchor(self, tensor: Tensor) -> Tensor:
        if self._used == len(self._anchors):
            norm_type = nn.BatchNorm2d if tensor.ndim == 4 else nn.BatchNorm1d
            norm = norm_type(tensor.shape[1], affine=False, device=tensor.device, dtype=tensor.dtype)
            self._anchors.append(norm.eval())
        self._used += 1
        anchored: Tensor = self._anchors[self._used - 1](tensor)
        return anchored


@dataclasses.dataclass(frozen=True)
class _Stack:
    """A tensor whose stacked parts are known, along its first or second dimension."""

    whole: Tensor
    parts: list[Any]
    dimension: int


def _pick(stack: _Stack, func: Callable[..., Any], args: tuple[Any, ...], result: Any) -> Any:
    """What a call takes out of a stack; ``result`` itself would couple all that was stacked.

    Args:
        stack: First argument of the call.
        func: Function that is called.
        args: Other arguments of the call.
        result: What the call returned.

    Returns:
        The part or parts that were asked for, another stack, or ``result`` where the call is unknown.
    """
    parts = stack.parts
    if func is Tensor.contiguous:
        return _Stack(result, parts, stack.dimension)
    if func in _TRANSPOSITIONS and result.ndim == 3 and _swaps_first_two(func, args):
        return _Stack(result, parts, 1 - stack.dimension)
    if stack.dimension != 0:
        return result
    if func in _FLATTENINGS and result.ndim == 4 and result.shape[2:] == stack.whole.shape[1:]:
        row = result.shape[1]
        nested = [_Stack(result[index], parts[row * index :][:row], 0) for index in range(result.shape[0])]
        return _Stack(result, nested, 0)
    if func in _UNSTACKINGS and args in ((), (0,)) and not isinstance(parts[0], _Stack):
        return tuple(parts)
    if func is not Tensor.__getitem__:
        return result
    first, *rest = args[0] if isinstance(args[0], tuple) else (args[0],)
    if isinstance(first, slice) and not rest:
        return _Stack(result, parts[first], 0)
    if not isinstance(first, int) or isinstance(first, bool):
        return result
    if isinstance(parts[first], _Stack):
        return _pick(parts[first], func, (tuple(rest),), result) if rest else parts[first]
    return parts[first][tuple(rest)] if rest else parts[first]


def _swaps_first_two(func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    order = args[0] if len(args) == 1 else args
    if func in (Tensor.permute, torch.permute):
        return tuple(dimension % 3 for dimension in order) == (1, 0, 2)
    return {dimension % 3 for dimension in order} == {0, 1}


def _concatenate_as_sum(tensors: list[Tensor], dimension: int) -> Tensor:
    """Concatenation along positions as a sum, which couples channels where a concatenation joins them."""
    lengths = [tensor.shape[dimension] for tensor in tensors]
    behind = 2 * (tensors[0].ndim - 1 - dimension)
    padded = [
        functional.pad(tensor, (*(0,) * behind, sum(lengths[:index]), sum(lengths[index + 1 :])))
        for index, tensor in enumerate(tensors)
    ]
    return torch.stack(padded).sum(0)


def _input_anchor(tensor: Tensor, temporal: bool) -> nn.Module:
    """A layer that passes the tensor on; only its place in the graph matters."""
    if not tensor.is_floating_point() or tensor.ndim < 2 or tensor.ndim > 4:
        return nn.Identity()
    layer: nn.Linear | nn.Conv1d | nn.Conv2d
    if tensor.ndim == 2 or (tensor.ndim == 3 and not temporal):
        layer = nn.Linear(tensor.shape[-1], tensor.shape[-1], bias=False, device="meta")
    else:
        convolution = nn.Conv1d if tensor.ndim == 3 else nn.Conv2d
        layer = convolution(tensor.shape[1], tensor.shape[1], 1, bias=False, device="meta")
    layer = layer.to_empty(device=tensor.device).to(tensor.dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(layer.weight.shape[0]).view_as(layer.weight))
    return layer
