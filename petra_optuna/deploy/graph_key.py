"""What an exported graph depends on besides the values of the model's parameters and buffers.

Two models with equal keys are captured as the same graph. The key holds the tree of modules with their
classes and attributes, the shapes and ties of tensors, the example's shapes, and the switches of PyTorch that
a forward pass may ask. It belongs to one process: classes and functions count as the objects that they are.
What a forward pass reads from elsewhere (a global variable, say) is not in the key.
"""

from __future__ import annotations

import enum
import functools
import types
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from petra_optuna.nn.inputs import ONLY_BATCH, DynamicAxes, Inputs, input_names, tensors

_PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, range, slice),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)
"""Types whose values their text tells."""
_CHILDREN = ("_parameters", "_buffers", "_modules")
_TENSORS = (Tensor, nn.Parameter)


class _UnknownInfluence(Exception):
    """The model holds something whose influence on the graph cannot be told."""


def graph_key(model: nn.Module, inputs: Inputs, dynamic: DynamicAxes = ONLY_BATCH) -> Hashable | None:
    """The key of the graph that ``model`` is exported as.

    Args:
        model: Model as it is exported.
        inputs: Example batch.
        dynamic: Axes besides the batch that are dynamic.

    Returns:
        The key; None where the model has hooks, or an attribute that is neither a plain value nor a module, a
        parameter or a buffer of it: a tensor of its own, say, whose values would be part of the graph.
    """
    try:
        axes = tuple((name, tuple(sorted(named.items()))) for name, named in sorted(dynamic.items()))
        return (_Describer(model).modules(), _example(inputs), axes, _switches())
    except _UnknownInfluence:
        return None


class _Describer:
    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._names = {id(module): name for name, module in model.named_modules()}
        self._tensors = {
            id(tensor): name for name, tensor in (*model.named_parameters(), *model.named_buffers())
        }

    def modules(self) -> Hashable:
        """Every module under each of its names."""
        return tuple(
            (name, self._module(module) if self._names[id(module)] == name else self._names[id(module)])
            for name, module in self._model.named_modules(remove_duplicate=False)
        )

    def _module(self, module: nn.Module) -> Hashable:
        own = vars(module)
        # Hooks that serve reading and writing weights say nothing of a forward pass.
        names = sorted(name for name in own if name not in _CHILDREN and "state_dict" not in name)
        if any(own[name] for name in names if name.endswith("_hooks")):
            raise _UnknownInfluence
        stored = (*own["_parameters"].items(), *own["_buffers"].items())
        return (
            type(module),
            type(module).forward,
            tuple((name, self._stored(tensor)) for name, tensor in stored),
            tuple((name, self._value(own[name])) for name in names),
            tuple((name, child is None) for name, child in own["_modules"].items()),
        )

    def _stored(self, tensor: Tensor | None) -> Hashable:
        if tensor is None:
            return None
        if type(tensor) not in _TENSORS:
            raise _UnknownInfluence
        return (
            self._tensors[id(tensor)],
            _shape(tensor),
            tensor.requires_grad,
            tuple((name, self._value(value)) for name, value in sorted(vars(tensor).items())),
        )

    def _value(self, value: Any) -> Hashable:
        value_type = type(value)
        if value_type in _PLAIN:
            return value_type, repr(value)
        if isinstance(value, enum.Enum):
            return value_type, value.name
        if value_type in (tuple, list, torch.Size):
            return value_type, self._values(value)
        if value_type in (set, frozenset):
            return value_type, frozenset(self._values(value))
        if value_type in (dict, OrderedDict):
            return value_type, self._values(value), self._values(value.values())
        if value_type is functools.partial:
            return value_type, self._values((value.func, value.args, value.keywords))
        if value_type is weakref.ref:
            return value_type, self._value(value())
        if isinstance(value, type) or _is_fixed(value):
            return value_type, value
        return value_type, self._own(value)

    def _values(self, values: Iterable[Any]) -> tuple[Hashable, ...]:
        return tuple(self._value(value) for value in values)

    def _own(self, value: Any) -> str:
        """Name of a module or tensor of the model."""
        name: str | None = self._names.get(id(value), self._tensors.get(id(value)))
        if name is None:
            raise _UnknownInfluence
        return name


def _is_fixed(value: Any) -> bool:
    """Whether this is a function that nothing but its source decides about."""
    if isinstance(value, types.FunctionType):
        return value.__closure__ is None
    owner = value.__self__ if isinstance(value, types.BuiltinFunctionType) else value
    return owner is not value and isinstance(owner, types.ModuleType | type | None)


def _shape(tensor: Tensor) -> Hashable:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device, tensor.layout


def _example(inputs: Inputs) -> Hashable:
    return type(inputs), input_names(inputs), tuple(_shape(tensor) for tensor in tensors(inputs))


def _switches() -> Hashable:
    """Switches of PyTorch that a forward pass may ask."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
    )
