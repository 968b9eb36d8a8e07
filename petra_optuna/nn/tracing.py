"""Which channels of a model are coupled: torch-pruning's dependency graph, traced with anchors.

An anchor is a layer that stands where the graph would otherwise guess a number of channels: behind
every input, and before and behind every concatenation. Without them a concatenation with a raw
input, with a flattened tensor or before a flattening is given wrong offsets (other channels would be
removed than those that were scored), and a sum with a raw input is pruned though the input cannot
follow. Anchors are part of the trace only; the model stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.inputs import Inputs, forward

_CONCATENATIONS = (torch.cat, torch.concat, torch.concatenate)
_REFUSALS = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""What torch-pruning raises, in place of one error of its own, on a model that it cannot trace."""


def trace(model: nn.Module, inputs: Inputs) -> tuple[tp.DependencyGraph, list[tp.dependency.Group]]:
    """The graph and its groups of coupled channels, those of the model's inputs left out.

    Args:
        model: In evaluation mode; its weights require gradients, because the trace follows autograd.
        inputs: A batch.

    Raises:
        OperationFailed: When torch-pruning cannot follow the model.
    """
    anchored = _Anchored(model, inputs).eval()
    with torch.no_grad():
        anchored(inputs)
    try:
        with torch.enable_grad():
            graph = tp.DependencyGraph().build_dependency(
                anchored, inputs, forward_fn=lambda module, batch: module(batch), verbose=False
            )
        return graph, list(graph.get_all_groups(ignored_layers=list(anchored.inputs.values())))
    except _REFUSALS as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
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


class _Anchored(nn.Module):
    """The model with anchors. The first call finds the concatenations and makes their anchors."""

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        named = inputs if isinstance(inputs, dict) else dict(enumerate(inputs))
        temporal = any(isinstance(module, nn.Conv1d) for module in model.modules())
        self.inputs = nn.ModuleDict(
            {f"input_{key}": _input_anchor(tensor, temporal) for key, tensor in named.items()}
        )
        self.joints = nn.ModuleList()
        self.image_like = (2, 3, 4) if temporal else (2, 4)
        self.model = model

    def forward(self, inputs: Inputs) -> Tensor:
        with _AnchoredConcatenation(self.joints, self.image_like):
            if isinstance(inputs, dict):
                return forward(self.model, {key: self._pass(key, value) for key, value in inputs.items()})
            return forward(self.model, tuple(self._pass(key, value) for key, value in enumerate(inputs)))

    def _pass(self, key: int | str, tensor: Tensor) -> Tensor:
        return self.inputs[f"input_{key}"](tensor)  # type: ignore[no-any-return]


class _AnchoredConcatenation(TorchFunctionMode):
    """Every concatenation along the channels runs between anchors, made where there are none yet."""

    def __init__(self, joints: nn.ModuleList, dimensions: tuple[int, ...]) -> None:
        super().__init__()
        self._joints = joints
        self._dimensions = dimensions
        self._used = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func not in _CONCATENATIONS:
            return func(*args, **named)
        tensors = args[0] if args else named["tensors"]
        dimension = args[1] if len(args) > 1 else named.get("dim", named.get("axis", 0))
        rank = tensors[0].ndim
        if rank not in self._dimensions or dimension % rank != 1:
            return func(*args, **named)
        return self._anchor(torch.cat([self._anchor(tensor) for tensor in tensors], 1))

    def _anchor(self, tensor: Tensor) -> Tensor:
        if self._used == len(self._joints):
            norm = nn.BatchNorm2d if tensor.ndim == 4 else nn.BatchNorm1d
            made = norm(tensor.shape[1], affine=False, device=tensor.device, dtype=tensor.dtype)
            self._joints.append(made.eval())
        self._used += 1
        anchored: Tensor = self._joints[self._used - 1](tensor)
        return anchored


def _input_anchor(tensor: Tensor, temporal: bool) -> nn.Module:
    """A layer that keeps the shape of the tensor; only its place in the graph matters."""
    if not tensor.is_floating_point() or tensor.ndim < 2 or tensor.ndim > 4:
        return nn.Identity()
    layer: nn.Module
    if tensor.ndim == 2 or (tensor.ndim == 3 and not temporal):
        layer = nn.Linear(tensor.shape[-1], tensor.shape[-1], device="meta")
    else:
        convolution = nn.Conv1d if tensor.ndim == 3 else nn.Conv2d
        layer = convolution(tensor.shape[1], tensor.shape[1], 1, device="meta")
    return layer.to_empty(device=tensor.device).to(tensor.dtype)
