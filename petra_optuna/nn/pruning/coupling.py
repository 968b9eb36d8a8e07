"""The walk through torch-pruning's graph that collects coupled channels, with an end.

torch-pruning follows the couplings for as long as it meets channels that it has not seen. Where the graph
guesses how a reshaping moves channels, as in windowed attention, each round of the walk finds new ones and
it never ends. Here it ends at the first channel that its layer does not have, and after ``LONGEST_WALK``
channels in any case: what was guessed wrong is not worth following.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch_pruning as tp
from torch import nn
from torch_pruning._helpers import GroupItem, _HybridIndex
from torch_pruning.dependency.index_mapping import update_index_mapping
from torch_pruning.pruner import function

from petra_optuna.nn.time_limit import check_time

ROOT_TYPES = (tp.ops.TORCH_CONV, tp.ops.TORCH_LINEAR, tp.ops.TORCH_EMBED)
"""Layers that make channels."""
LONGEST_WALK = 2**20
"""Most channels that are followed to collect one group. VGG-16 at 224 pixels takes 2**18."""


class CoupledChannels(tp.dependency.Group):  # type: ignore[misc]  # torch-pruning has no types
    """A group of torch-pruning that says whether its walk came to an end of its own.

    Attributes:
        complete: False where the walk was stopped, so that layers may be missing.
    """

    def __init__(self, graph: tp.DependencyGraph, complete: bool = True) -> None:
        super().__init__()
        self._DG = graph
        self.complete = complete


class BoundedGraph(tp.DependencyGraph):  # type: ignore[misc]  # torch-pruning has no types
    """A dependency graph whose groups are collected in bounded time."""

    def index_all(self) -> None:
        """Work out once how each concatenation, split and reshaping moves channels."""
        # torch-pruning gives up on every concatenation behind a parameter of three dimensions.
        for node in self.module2node.values():
            node.enable_index_mapping = True
        update_index_mapping(self)

    def groups(self) -> Iterator[CoupledChannels]:
        """A group of all channels of each layer that makes some, unless an earlier group has them."""
        made: set[object] = set()
        for layer in list(self.module2node):
            if layer in made or layer in self.IGNORED_LAYERS_IN_TRACING or not isinstance(layer, ROOT_TYPES):
                continue
            pruner = self.get_pruner_of_module(layer)
            channels = range(pruner.get_out_channels(layer))
            group = self.get_pruning_group(layer, pruner.prune_out_channels, channels)
            makers = {dep.layer for dep, _ in group if self.is_out_channel_pruning_fn(dep.handler)}
            made |= makers
            if not any(maker in self.IGNORED_LAYERS_IN_TRACING for maker in makers):
                yield group

    def get_pruning_group(
        self, module: nn.Module, pruning_fn: Callable[..., Any], idxs: Sequence[int]
    ) -> CoupledChannels:
        """Everything that is coupled to these channels of a layer.

        Args:
            module: Layer of the graph.
            pruning_fn: Side of the layer, as torch-pruning's function that removes channels there.
            idxs: Channels.
        """
        if isinstance(module, tp.ops.TORCH_CONV) and 1 < module.groups == module.out_channels:
            pruning_fn = function.prune_depthwise_conv_out_channels
        root = self.module2node[module]
        start = tp.dependency.Dependency(pruning_fn, pruning_fn, source=root, target=root)
        collected = [(start, [_HybridIndex(idx=index, root_idx=index) for index in idxs])]
        complete = self._walk(collected)
        return self._merge(collected, complete)

    def _walk(self, collected: list[tuple[tp.dependency.Dependency, list[_HybridIndex]]]) -> bool:
        """Add all that follows from the first entry; whether that came to an end."""
        seen: set[object] = set()
        followed, stack = 0, list(collected)
        while stack:
            check_time()
            dependency, channels = stack.pop()
            for following in dependency.target.dependencies:
                if not following.is_triggered_by(dependency.handler):
                    continue
                reached = channels
                for mapping in following.index_mapping:
                    reached = reached if mapping is None else mapping(reached)
                key = (following.target, following.handler, tuple(reached))
                if not reached or key in seen:
                    continue
                seen.add(key)
                followed += len(reached)
                collected.append((following, reached))
                stack.append((following, reached))
                if followed > LONGEST_WALK or self._exceeds(following, reached):
                    return False
        return True

    def _exceeds(self, dependency: tp.dependency.Dependency, channels: list[_HybridIndex]) -> bool:
        """Whether the layer has fewer channels than that."""
        outwards = self.is_out_channel_pruning_fn(dependency.handler)
        count = (self.get_out_channels if outwards else self.get_in_channels)(dependency.target)
        return count is not None and max(index.idx for index in channels) >= count

    def _merge(
        self, collected: list[tuple[tp.dependency.Dependency, list[_HybridIndex]]], complete: bool
    ) -> CoupledChannels:
        """One entry for each side of each layer, with plain numbers of channels."""
        merged: dict[object, tuple[tp.dependency.Dependency, dict[int, int]]] = {}
        for dependency, channels in collected:
            side = (dependency.target, dependency.handler)
            roots = merged.setdefault(side, (dependency, {}))[1]
            for index in channels:
                roots.setdefault(index.idx, index.root_idx)
        group = CoupledChannels(self, complete)
        for dependency, roots in merged.values():
            item = GroupItem(dependency, list(roots))
            item.root_idxs = list(roots.values())
            group.items.append(item)
        return group
