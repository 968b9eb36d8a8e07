"""What a batch of the user's loaders becomes, and which sizes its inputs and targets have."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from petra_optuna.errors import TaskError, foreign_errors_as
from petra_optuna.nn.inputs import (
    DynamicAxes,
    Inputs,
    doubled,
    input_names,
    mapped,
    sizes_along,
    take,
    tensors,
)
from petra_optuna.nn.randomness import seeded
from petra_optuna.tasks.split import Split, Unpack

SIZED_SAMPLES = 32
"""Samples of a split whose sizes are looked at, each in a batch of its own."""
TARGET = "target"


def in_float32(unpack: Unpack) -> Unpack:
    """A function that unpacks a batch into tensors on the CPU, floating-point numbers in float32.

    Optional inputs may be None: they are left out, so that the model's defaults stand.

    Args:
        unpack: The user's function, or ``default_unpack``.
    """
    return functools.partial(_unpacked, unpack)


def own_unpack(unpack: Unpack) -> Unpack:
    """The user's function, or ``default_unpack``, of which ``in_float32`` made this one."""
    is_ours = isinstance(unpack, functools.partial) and unpack.func is _unpacked
    return unpack.args[0] if is_ours else unpack  # type: ignore[attr-defined]


def _unpacked(unpack: Callable[[Any], tuple[Any, Any]], batch: Any) -> tuple[Inputs, Tensor]:
    given, target = unpack(batch)
    inputs: dict[str, Any] | tuple[Any, ...]
    if isinstance(given, Mapping):
        inputs = {str(name): part for name, part in given.items() if part is not None}
        parts = (*inputs.values(), target)
    else:
        inputs = tuple(given) if isinstance(given, tuple | list) else (given,)
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        parts = (*inputs, target)
    for part in parts:
        if not isinstance(part, Tensor):
            raise TaskError(
                f"inputs and target must be tensors, got {type(part).__name__}; give optional inputs before "
                "others by name, in a dict"
            )
    if not inputs:
        raise TaskError("a batch has a target and no inputs; give `unpack`")
    return mapped(inputs, _plain), _plain(target)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.cpu().to(torch.float32) if tensor.is_floating_point() else tensor.cpu()


def check_sizes(splits: Mapping[str, Split], dynamic: DynamicAxes) -> None:
    """Check that no axis but the batch and the dynamic ones has several sizes.

    Args:
        splits: Splits by name.
        dynamic: Axes whose sizes vary.

    Raises:
        TaskError: When another axis does, naming the sizes; or when ``dynamic`` names no axis of an input.
    """
    sizes: dict[tuple[str, int], set[int]] = defaultdict(set)
    dimensions: dict[str, set[int]] = defaultdict(set)
    for split in splits.values():
        for name, tensor in _samples(split):
            dimensions[name].add(tensor.ndim)
            for axis in range(1, tensor.ndim):
                sizes[name, axis].add(tensor.shape[axis])
    for name, counts in dimensions.items():
        if len(counts) > 1:
            raise TaskError(
                f"{_shown(name)} has {min(counts)} dimensions in some batches, {max(counts)} in others"
            )
    _check_dynamic(dynamic, {name: counts.pop() for name, counts in dimensions.items() if name != TARGET})
    for (name, axis), seen in sizes.items():
        if len(seen) == 1 or axis in dynamic.get(name, {}) or (name == TARGET and dynamic):
            continue
        given = "input" if name == TARGET else name
        raise TaskError(
            f"{_shown(name)} has sizes from {min(seen)} to {max(seen)} along axis {axis} over the samples of "
            f"{', '.join(splits)}; give `dynamic`, for example {{{given!r}: {{{axis}: 'time'}}}}, or a "
            "`collate_fn` that makes them one size"
        )


def _samples(split: Split) -> list[tuple[str, Tensor]]:
    """The tensors of some samples by name, each in a batch of its own."""
    count = min(SIZED_SAMPLES, len(split))
    with seeded(0), foreign_errors_as(TaskError, "a batch of one sample cannot be made"):
        return [
            named
            for inputs, target in split.batches(1, fraction=count / len(split), limit=count)
            for named in (*zip(input_names(inputs), tensors(inputs), strict=True), (TARGET, target))
        ]


def _check_dynamic(dynamic: DynamicAxes, dimensions: Mapping[str, int]) -> None:
    for name, axes in dynamic.items():
        if name not in dimensions:
            raise TaskError(f"`dynamic` names input {name!r}; the inputs are {', '.join(dimensions)}")
        for axis, named in axes.items():
            if axis not in range(1, dimensions[name]) or not str(named).isidentifier():
                raise TaskError(
                    f"`dynamic` of input {name!r} must map axes from 1 to {dimensions[name] - 1} to names, "
                    f"got {axis!r}: {named!r}"
                )


def _shown(name: str) -> str:
    return "the target" if name == TARGET else f"input {name!r}"


def other_example(split: Split, example: Inputs, dynamic: DynamicAxes) -> Inputs:
    """A sample of other sizes along the dynamic axes than the example; one of double its sizes if none."""
    sizes, count = sizes_along(example, dynamic), min(SIZED_SAMPLES, len(split))
    for inputs, _ in split.batches(1, fraction=count / len(split), limit=count):
        own = sizes_along(inputs, dynamic)
        if all(own[axis] != size for axis, size in sizes.items()):
            return inputs
    return doubled(take(example, 1), dynamic)
