"""Parts of a model for which an identity can stand: residual blocks, and layers that keep a shape.

A residual block is known by a law, not by its class: with all its weights at zero it returns its input,
on the activations that it gets from data. So a block that ends in a ReLU is one where its input is
never negative. The stage around it often keeps the law as well; the innermost module that does is the
block.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from petra_optuna.errors import FOREIGN_ERRORS, one_line
from petra_optuna.nn.holding import temporarily_set
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.low_rank.pairs import LowRankPair
from petra_optuna.nn.pruning.importance import Criterion, RandomScores, WeightScores
from petra_optuna.nn.surgery import replace_module

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, LowRankPair)


@dataclasses.dataclass(frozen=True)
class Replaceable:
    """What an identity may replace.

    Attributes:
        names: Of residual blocks, and of layers outside them that map a shape onto itself; in the
            order of the model.
        left_out: Those that no identity can replace: why.
    """

    names: tuple[str, ...]
    left_out: dict[str, str]


@dataclasses.dataclass
class _Seen:
    """What is known of a module after a forward pass."""

    calls: int = 0
    keeps_shape: bool = True
    is_block: bool = True
    is_plain: bool = True


def find_replaceable(model: nn.Module, inputs: Inputs) -> Replaceable:
    """Residual blocks, and weighted layers outside them whose output has the shape of their input.

    The model itself is none of them.

    Args:
        model: In evaluation mode and private to the caller; it is the same afterwards.
        inputs: A batch of real data: what a block gets decides whether it keeps the law.
    """
    modules = {name: module for name, module in model.named_modules() if name and _has_matrix(module)}
    seen = _watch(model, modules, inputs)
    blocks = [name for name in modules if seen[name].calls and seen[name].is_block]
    blocks = [name for name in blocks if not any(other.startswith(f"{name}.") for other in blocks)]
    pairs = [name for name, module in modules.items() if isinstance(module, LowRankPair)]
    layers = [
        name
        for name, module in modules.items()
        if isinstance(module, _LAYERS)
        and seen[name].calls
        and seen[name].keeps_shape
        and not any(name == outer or name.startswith(f"{outer}.") for outer in blocks)
        and not any(name.startswith(f"{pair}.") for pair in pairs)
    ]
    last = _reaching_output(model, {name: modules[name] for name in layers}, inputs)
    left_out = {
        name: reason
        for name in modules
        if name in {*blocks, *layers} and (reason := _refusal(model, name, seen[name], name in last))
    }
    names = tuple(name for name in modules if name in {*blocks, *layers} and name not in left_out)
    return Replaceable(names, left_out)


def block_score(block: nn.Module, criterion: Criterion, scores: WeightScores) -> float | None:
    """How much a block matters, on a scale on which blocks of any width and depth compare.

    - ``taylor`` and ``hessian``: the mean over all weights. They are changes of the loss, in one unit
      wherever a weight is, so the mean is what is lost for each weight that is saved.
    - ``magnitude_l1`` and ``magnitude_l2``: the mean over matrices and kernels, relative to the size
      that keeps a signal's variance: ``|w|^p n^(p/2)`` with n inputs a neuron, since weights shrink
      with the width (arXiv 1502.01852, eq. 10). Biases and scales of norms have another unit.
    - ``lamp``: the mean over matrices and kernels, of which each is a layer of its own. It is blind to
      the scale of a layer; the more weights, the less each one scores.
    - ``batch_norm``: the mean of ``|gamma|``.
    - ``random``: the first draw of the block. Means of many draws would hardly differ.

    Args:
        block: A part of the model.
        criterion: What ``scores`` are of.
        scores: Of the weights of the model.

    Returns:
        The score, or None where the block has no weight that is scored.
    """
    weights = [weight for weight in block.parameters() if weight in scores]
    if criterion in ("magnitude_l1", "magnitude_l2", "lamp"):
        weights = [weight for weight in weights if weight.dim() > 1]
    if not weights:
        return None
    if isinstance(scores, RandomScores):
        return float(scores[weights[0]].flatten()[0])
    power = {"magnitude_l1": 0.5, "magnitude_l2": 1.0}.get(criterion, 0.0)
    total = sum(float(scores[weight].double().sum()) * weight[0].numel() ** power for weight in weights)
    return float(total / sum(weight.numel() for weight in weights))


def drop(
    model: nn.Module, names: Sequence[str], count: int, inputs: Inputs
) -> tuple[list[str], dict[str, str]]:
    """Put identities in the places of the first ``count`` blocks that the model runs without, in place.

    Args:
        model: In evaluation mode and private to the caller.
        names: Of blocks, those that go first first.
        count: How many go, where so many can.
        inputs: A batch to try the model on.

    Returns:
        The names of the blocks that went, and of those that could not: why.
    """
    with torch.no_grad():
        shape = forward(model, inputs).shape
    dropped: list[str] = []
    failed: dict[str, str] = {}
    for name in names:
        if len(dropped) == count:
            break
        block = model.get_submodule(name)
        replace_module(model, name, nn.Identity().eval())
        reason = _why_broken(model, inputs, shape)
        if reason is None:
            dropped.append(name)
        else:
            replace_module(model, name, block)
            failed[name] = reason
    return dropped, failed


def _why_broken(model: nn.Module, inputs: Inputs, shape: torch.Size) -> str | None:
    try:
        with torch.no_grad():
            found = forward(model, inputs).shape
    except FOREIGN_ERRORS as error:
        return f"the model does not run without it ({one_line(error)})"
    if found != shape:
        return f"without it the output's shape is {tuple(found)}, not {tuple(shape)}"
    return None


def _has_matrix(module: nn.Module) -> bool:
    return any(weight.dim() > 1 for weight in module.parameters())


def _watch(model: nn.Module, modules: Mapping[str, nn.Module], inputs: Inputs) -> dict[str, _Seen]:
    """Run the model once, and in it each module that keeps its input's shape once more without weights."""
    seen = {name: _Seen() for name in modules}
    rung_callback = _Watcher()
    with contextlib.ExitStack() as hooks, torch.no_grad():
        for name, module in modules.items():
            before = module.register_forward_pre_hook(rung_callback.before, with_kwargs=True)
            after = module.register_forward_hook(rung_callback.after(seen[name]), with_kwargs=True)
            hooks.callback(before.remove)
            hooks.callback(after.remove)
        forward(model, inputs)
    return seen


class _Watcher:
    """Hooks that follow the calls of modules and try the law at each of them."""

    def __init__(self) -> None:
        self._given: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._trying = False

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep a copy of what the module is called with: it may change its input in place."""
        if not self._trying:
            copies = tuple(_copied(value) for value in args)
            self._given.append((copies, {name: _copied(value) for name, value in kwargs.items()}))

    def after(self, seen: _Seen) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]:
        """A hook that writes what it sees into ``seen``."""

        def check(module: nn.Module, _: tuple[Any, ...], __: dict[str, Any], output: Any) -> None:
            if self._trying:
                return
            args, kwargs = self._given.pop()
            given = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
            seen.calls += 1
            seen.is_plain &= len(args) == 1 and not kwargs and given is not None
            seen.keeps_shape &= (
                given is not None
                and isinstance(output, Tensor)
                and (given.shape, given.dtype) == (output.shape, output.dtype)
            )
            # Zeros come back from every layer without weights, so they tell nothing.
            if given is None or not seen.keeps_shape or not given.any():
                seen.is_block = False
            elif seen.is_block:
                expected = given.clone()
                seen.is_block = torch.equal(self._without_weights(module, args, kwargs), expected)

        return check

    def _without_weights(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        self._trying = True
        try:
            with temporarily_set({tensor: torch.zeros_like(tensor) for tensor in _weights(module)}):
                output: Tensor = module(*args, **kwargs)
            return output
        finally:
            self._trying = False


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _weights(module: nn.Module) -> Iterator[Tensor]:
    """Parameters, and the means of batch norms: without a weight of its own a norm subtracts its mean."""
    yield from module.parameters()
    for part in module.modules():
        if isinstance(part, _BatchNorm) and part.running_mean is not None:
            yield part.running_mean


def _reaching_output(model: nn.Module, layers: Mapping[str, nn.Module], inputs: Inputs) -> set[str]:
    """LayerIndex between which and the model's output no other layer stands.

    Every layer's output is cut from what made it, so that gradients of the model's output reach such
    layers alone.
    """
    names = {layer: name for name, layer in layers.items()}
    leaves: dict[str, Tensor] = {}

    def cut(layer: nn.Module, _: tuple[Any, ...], output: Any) -> Any:
        if layer not in names:
            return _detached(output)
        leaves[names[layer]] = leaf = output.detach().requires_grad_()
        return leaf.clone()  # a leaf may not be changed in place

    with contextlib.ExitStack() as hooks, torch.enable_grad():
        for module in model.modules():
            if module in names or (_has_matrix(module) and not any(module.children())):
                hooks.callback(module.register_forward_hook(cut).remove)
        output = forward(model, inputs)
    if not output.requires_grad or not leaves:
        return set()
    gradients = torch.autograd.grad(output.sum(), list(leaves.values()), allow_unused=True)
    return {name for name, gradient in zip(leaves, gradients, strict=True) if gradient is not None}


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    return tuple(_detached(part) for part in value) if type(value) is tuple else value


def _refusal(model: nn.Module, name: str, seen: _Seen, is_last: bool) -> str | None:
    """Why no identity can stand for the block, or None where one can."""
    if seen.calls > 1:
        return f"it is called {seen.calls} times in a forward pass"
    if not seen.is_plain:
        return "it is not called with one tensor alone"
    if is_last:
        return "no other layer stands between it and the output of the model"
    inside = set(model.get_submodule(name).parameters())
    outside = {
        weight
        for place, weight in model.named_parameters(remove_duplicate=False)
        if not place.startswith(f"{name}.")
    }
    if inside & outside:
        return "it shares weights with another part of the model"
    return None if outside else "it holds all weights of the model"
