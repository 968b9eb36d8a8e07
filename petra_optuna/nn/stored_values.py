"""The fewest values of its weights that a model's exported graph can store.

An exporter drops what the output does not follow from, and computes what follows from weights alone: the sum
of two tables is stored as one. So a forward pass is recorded, and what is stored is a cut: without the values
at the cut no path leads from the weights to an operation that reads the input. The smallest cut is a lower
bound of what any exporter stores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from torch import Tensor, nn

from petra_optuna.nn.containers import tensors_in
from petra_optuna.nn.function_mode import FunctionMode
from petra_optuna.nn.inputs import Inputs, forward, tensors

_LARGEST = 2**31 - 1
"""Largest capacity that scipy computes with."""
_WRITES = ("__setitem__", "copy_")


def fewest_stored_values(model: nn.Module, inputs: Inputs) -> int:
    """A lower bound of the values of matrices, kernels and tables that the model's graph stores.

    Vectors do not count, since biases and batch norms fold into other layers. Equal tensors count once. The
    model's mode is the same afterwards.

    Args:
        model: Any module that returns one tensor.
        inputs: Batch of any size.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad(), _Recorder() as recorder:
            output = forward(model, inputs)
    finally:
        for module in training:
            module.training = True
    graph = _Graph.of(recorder.calls, output)
    return graph.smallest_cut(_different(model.parameters()), {id(tensor) for tensor in tensors(inputs)})


@dataclasses.dataclass
class _Value:
    """A tensor as it stands after a call.

    Attributes:
        tensor: The tensor, held so that no other one gets its identity.
        read: What it was computed from.
    """

    tensor: Tensor
    read: Sequence[_Value] = ()


class _Recorder(FunctionMode):
    """Records what each tensor was computed from.

    A call that is not seen cuts its result off from the weights behind it. That makes the bound lower.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[int, _Value] = {}

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the call and note what it read and what it returned."""
        read = [self._value(tensor) for tensor in tensors_in((args, kwargs))]
        result = func(*args, **kwargs)
        written = tensors_in(args[:1]) if getattr(func, "__name__", "") in _WRITES else ()
        for tensor in (*tensors_in(result), *written):
            self.calls[id(tensor)] = _Value(tensor, read)
        return result

    def _value(self, tensor: Tensor) -> _Value:
        return self.calls.setdefault(id(tensor), _Value(tensor))


@dataclasses.dataclass(frozen=True)
class _Graph:
    """The values that an output follows from, each after those that it was computed from."""

    values: Sequence[_Value]

    @classmethod
    def of(cls, calls: Mapping[int, _Value], output: Tensor) -> _Graph:
        """Walk back from the output."""
        end = calls.get(id(output), _Value(output))
        ordered: dict[int, _Value] = {}
        waiting: list[tuple[_Value, bool]] = [(end, False)]
        while waiting:
            value, is_complete = waiting.pop()
            if is_complete:
                ordered[id(value)] = value
            elif id(value) not in ordered:
                waiting.append((value, True))
                waiting += [(source, False) for source in value.read if id(source) not in ordered]
        return cls(tuple(ordered.values()))

    def smallest_cut(self, weights: Mapping[int, int], inputs: set[int]) -> int:
        """Fewest values that separate the weights from what reads the inputs, and from the output.

        Args:
            weights: Identity of each weight -> that of the first one that is equal to it.
            inputs: Identities of the inputs.
        """
        varying: set[int] = set()
        for value in self.values:
            if id(value.tensor) in inputs or any(id(source) in varying for source in value.read):
                varying.add(id(value))
        flow = _Flow()
        for value in self.values:
            if id(value) not in varying:
                is_weight = not value.read and id(value.tensor) in weights
                flow.add(self._name(value, weights), value.tensor.numel(), is_weight)
            for source in value.read:
                if id(source) not in varying:
                    reader = None if id(value) in varying else self._name(value, weights)
                    flow.lead(self._name(source, weights), reader)
        if self.values and id(self.values[-1]) not in varying:
            flow.lead(self._name(self.values[-1], weights), None)
        return flow.largest()

    @staticmethod
    def _name(value: _Value, weights: Mapping[int, int]) -> int:
        return weights.get(id(value.tensor), id(value)) if not value.read else id(value)


class _Flow:
    """A network of pipes from one source, the weights, to one drain, what reads the input."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._pipes: dict[tuple[int, int], int] = {}

    def add(self, name: int, capacity: int, is_source: bool) -> None:
        """Add a knot through which ``capacity`` flows at most."""
        enters, leaves = self._ends(name)
        self._pipes[enters, leaves] = capacity
        if is_source:
            self._pipes[0, enters] = capacity

    def lead(self, name: int, reader: int | None) -> None:
        """Lead all that leaves a knot to another one, or to the drain."""
        _, leaves = self._ends(name)
        self._pipes[leaves, 1 if reader is None else self._ends(reader)[0]] = -1

    def largest(self) -> int:
        """The largest flow, which is the smallest cut; rounded down beyond 2^31 values."""
        total = sum(size for (start, _), size in self._pipes.items() if start == 0)
        if total == 0:
            return 0
        unit = -(-total // _LARGEST)
        sizes = [(total if size < 0 else min(size, total)) // unit for size in self._pipes.values()]
        starts, ends = zip(*self._pipes, strict=True)
        count = 2 * len(self._numbers) + 2
        pipes = csr_array((np.array(sizes, np.int32), (starts, ends)), shape=(count, count))
        return int(maximum_flow(pipes, 0, 1).flow_value) * unit

    def _ends(self, name: int) -> tuple[int, int]:
        number = self._numbers.setdefault(name, len(self._numbers))
        return 2 * number + 2, 2 * number + 3


def _different(parameters: Iterable[Tensor]) -> dict[int, int]:
    """Identity of each matrix, kernel or table -> that of the first one that is equal to it."""
    first: dict[int, int] = {}
    by_shape: dict[Any, list[Tensor]] = {}
    for weight in parameters:
        if weight.dim() < 2:
            continue
        alike = by_shape.setdefault((weight.dtype, tuple(weight.shape)), [])
        equal = next((other for other in alike if torch.equal(other, weight)), None)
        first[id(weight)] = id(weight if equal is None else equal)
        if equal is None:
            alike.append(weight)
    return first
