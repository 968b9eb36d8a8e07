"""Which channels of a model are coupled: torch-pruning's dependency graph of the anchored model."""

from __future__ import annotations

import math

import torch
import torch_pruning as tp
from torch import nn

from petra_optuna.errors import FOREIGN_ERRORS, OperationFailed, one_line
from petra_optuna.nn.inputs import Inputs
from petra_optuna.nn.pruning.traceable import TraceableModel

_REFUSALS = (AssertionError, *FOREIGN_ERRORS)
"""What torch-pruning raises, in place of one error of its own, on a model that it cannot trace."""
ROOTS = (tp.ops.TORCH_CONV, tp.ops.TORCH_LINEAR, tp.ops.TORCH_EMBED)
"""LayerIndex that make channels."""


def trace(model: nn.Module, inputs: Inputs) -> tuple[tp.DependencyGraph, list[tp.dependency.Group]]:
    """The graph, whose ``model`` is ``TraceableModel``, and its groups of coupled channels.

    Groups of hidden units come first, narrow ones before wide ones.

    Args:
        model: In evaluation mode; its weights require gradients, because the trace follows autograd.
        inputs: A batch.

    Raises:
        OperationFailed: When torch-pruning cannot follow the model.
    """
    anchored = TraceableModel(model, inputs).eval()
    with torch.no_grad():
        anchored(inputs)
    try:
        with torch.enable_grad():
            graph = tp.DependencyGraph().build_dependency(
                anchored,
                inputs,
                forward_fn=lambda module, batch: module(batch),
                ignored_layers=list(anchored.proxies),
                verbose=False,
            )
        # torch-pruning gives up on every concatenation behind a parameter of three dimensions.
        for node in graph.module2node.values():
            node.enable_index_mapping = True
        units = {
            part: part.out_features for part in anchored.substitutes.modules() if isinstance(part, nn.Linear)
        }
        ordered = sorted(graph.module2node.items(), key=lambda item: units.get(item[0], math.inf))
        graph.module2node = dict(ordered)
        return graph, list(graph.get_all_groups(root_module_types=ROOTS))
    except _REFUSALS as error:
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
