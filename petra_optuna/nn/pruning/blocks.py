"""Parts of a model that an identity can replace: residual blocks, and layers that keep a shape.

A residual block is recognised by a law, not by its class: with all its weights at zero it returns its
input, on the activations that it gets from data. So a block that ends in a ReLU is one where its input is
never negative. The stage around it often keeps the law as well; the innermost module that does is the
block.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.low_rank import LowRankPair
from petra_optuna.nn.pruning.importance import Criterion, RandomScores, WeightScores
from petra_optuna.nn.surgery import has_hooks, temporarily_set

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, LowRankPair)


@dataclasses.dataclass(frozen=True)
class ReplaceableParts:
    """Parts of a model that an identity may replace.

    Attributes:
        names: Names of residual blocks, and of layers outside them that map a shape onto itself, in the
            order of the model.
        left_out: Reason why an identity cannot replace a block or layer, by its name.
    """

    names: tuple[str, ...]
    left_out: dict[str, str]


@dataclasses.dataclass
class _CallRecord:
    """What a forward pass has shown of a module.

    Attributes:
        calls: Number of calls.
        keeps_shape: Whether every output had the shape and type of its input.
        is_block: Whether every call kept the law of residual blocks.
        input_first: Whether the first argument of every call was a tensor, the block's input.
    """

    calls: int = 0
    keeps_shape: bool = True
    is_block: bool = True
    input_first: bool = True


def find_replaceable(model: nn.Module, inputs: Inputs) -> ReplaceableParts:
    """Find residual blocks, and weighted layers outside them whose output has the shape of their input.

    The model itself is none of them.

    Args:
        model: Model in evaluation mode, private to the caller; it is the same afterwards.
        inputs: Batch of real data: what a block gets decides whether it keeps the law.
    """
    modules = {name: module for name, module in model.named_modules() if name and _has_matrix(module)}
    records = _record_calls(model, modules, inputs)
    blocks = [name for name in modules if records[name].calls and records[name].is_block]
    blocks = [name for name in blocks if not any(other.startswith(f"{name}.") for other in blocks)]
    pairs = [name for name, module in modules.items() if isinstance(module, LowRankPair)]
    layers = [
        name
        for name, module in modules.items()
        if isinstance(module, _LAYERS)
        and records[name].calls
        and records[name].keeps_shape
        and not any(name == outer or name.startswith(f"{outer}.") for outer in blocks)
        and not any(name.startswith(f"{pair}.") for pair in pairs)
    ]
    last = _reaching_output(model, {name: modules[name] for name in layers}, inputs)
    left_out = {
        name: reason
        for name in modules
        if name in {*blocks, *layers}
        and (reason := _reason_against(model, name, records[name], name in last))
    }
    names = tuple(name for name in modules if name in {*blocks, *layers} and name not in left_out)
    return ReplaceableParts(names, left_out)


def block_score(block: nn.Module, criterion: Criterion, scores: WeightScores) -> float | None:
    """Importance of a block, on a scale on which blocks of any width and depth compare.

    - ``taylor`` and ``hessian``: the mean over all weights. They are changes of the loss, in one unit
      wherever a weight is, so the mean is what is lost for each weight that is saved.
    - ``magnitude_l1`` and ``magnitude_l2``: the mean over matrices and kernels, relative to the size
      that keeps a signal's variance: ``|w|^p n^(p/2)`` with n inputs a neuron, since weights shrink
      with the width (arXiv 1502.01852, eq. 10). Biases and scales of norms have another unit.
    - ``lamp``: the mean over matrices and kernels, of which each is a layer of its own. It is blind to
      the scale of a layer; the more weights, the less each one scores.
    - ``batch_norm``: the mean of ``|gamma|``.
    - ``random``: the first random number of the block. Means of many would hardly differ.

    Args:
        block: Part of the model.
        criterion: Criterion that gave ``scores``.
        scores: Scores of the weights of the model.

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
    power = {"magnitude_l1": 0.5, "magnitude_l2": 1.0}.get(criterion, 0.0)  # n^(p/2), see eq. 10
    total = sum(float(scores[weight].double().sum()) * weight[0].numel() ** power for weight in weights)
    return float(total / sum(weight.numel() for weight in weights))


def _has_matrix(module: nn.Module) -> bool:
    return any(weight.dim() > 1 for weight in module.parameters())


def _record_calls(
    model: nn.Module, modules: Mapping[str, nn.Module], inputs: Inputs
) -> dict[str, _CallRecord]:
    """Run the model once, and in it each module that keeps its input's shape once more without weights."""
    records = {name: _CallRecord() for name in modules}
    recorder = _CallRecorder()
    with contextlib.ExitStack() as hooks, torch.no_grad():
        for name, module in modules.items():
            before = module.register_forward_pre_hook(recorder.before_call, with_kwargs=True)
            after = module.register_forward_hook(recorder.after_call(records[name]), with_kwargs=True)
            hooks.callback(before.remove)
            hooks.callback(after.remove)
        forward(model, inputs)
    return records


class _CallRecorder:
    """Hooks that record the calls of modules and test the law of residual blocks at each of them."""

    def __init__(self) -> None:
        self._given: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._trying = False

    def before_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep a copy of what the module is called with: it may change its input in place."""
        if not self._trying:
            copies = tuple(_copied(value) for value in args)
            self._given.append((copies, {name: _copied(value) for name, value in kwargs.items()}))

    def after_call(
        self, record: _CallRecord
    ) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]:
        """A hook that writes what a call shows into ``record``."""

        def check(module: nn.Module, _: tuple[Any, ...], __: dict[str, Any], output: Any) -> None:
            if self._trying:
                return
            args, kwargs = self._given.pop()
            given = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
            record.calls += 1
            record.input_first &= bool(args) and isinstance(args[0], Tensor)
            record.keeps_shape &= (
                given is not None
                and isinstance(output, Tensor)
                and (given.shape, given.dtype) == (output.shape, output.dtype)
            )
            # Zeros come back from every layer without weights, so they tell nothing.
            if given is None or not record.keeps_shape or not given.any():
                record.is_block = False
            elif record.is_block:
                expected = given.clone()
                record.is_block = torch.equal(self._without_weights(module, args, kwargs), expected)

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
    """Parameters, and the running means of batch norms: a norm without weights still subtracts its mean."""
    yield from module.parameters()
    for part in module.modules():
        if isinstance(part, _BatchNorm) and part.running_mean is not None:
            yield part.running_mean


def _reaching_output(model: nn.Module, layers: Mapping[str, nn.Module], inputs: Inputs) -> set[str]:
    """Names of the layers whose output reaches the model's output through no other layer.

    Every layer's output is detached from what made it, so that gradients of the model's output reach
    such layers alone.
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


def _reason_against(model: nn.Module, name: str, record: _CallRecord, is_last: bool) -> str | None:
    """Reason why no identity can replace the block, or None where one can."""
    if has_hooks(model.get_submodule(name)):
        return "its calls pass through hooks"
    if record.calls > 1:
        return f"it is called {record.calls} times in a forward pass"
    if not record.input_first:
        return "its first argument is not a tensor"
    if is_last:
        return "no other layer stands between it and the output of the model"
    inside = set(model.get_submodule(name).parameters())
    outside = {
        weight
        for parameter_name, weight in model.named_parameters(remove_duplicate=False)
        if not parameter_name.startswith(f"{name}.")
    }
    if inside & outside:
        return "it shares weights with another part of the model"
    return None if outside else "it holds all weights of the model"
