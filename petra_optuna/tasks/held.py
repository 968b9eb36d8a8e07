"""What functions, layers and other objects hold beyond their code, as a hash that all processes agree on.

``source_sha256`` says what code a loss or a layer is. Two of one code still differ in what they hold: class
weights, a captured value, a default, an attribute, a constant of the user's module. A fingerprint without
them gives one task the trained weights of another, so what cannot be hashed is refused.
"""

from __future__ import annotations

import builtins
import dis
import functools
import hashlib
import inspect
import logging
import pickle
import re
import sys
import sysconfig
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from petra_optuna.errors import FOREIGN_ERRORS, TaskError
from petra_optuna.source import source_sha256

_OURS = __name__.partition(".")[0]
_STANDARD = (sys.stdlib_module_names | {"builtins"}) - {"__main__"}
_INSTALLED = tuple({path for name, path in sysconfig.get_paths().items() if name.endswith("lib")})
_PLAIN = (
    *(type(None), type(...), bool, int, float, complex, str, bytes, slice, range, PurePath),
    *(torch.dtype, torch.device, np.generic, np.dtype),
)
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_TOLD_LAYERS = re.compile(
    r"torch\.nn\.modules\.(activation|batchnorm|container|conv|dropout|flatten|linear|pooling)"
    r"|torchvision\.models\.resnet"
)
_TOLD_OF_WINDOWS = {"stride", "padding", "dilation", "kernel_size", "ceil_mode", "return_indices"}
_TOLD_OF_CONVOLUTIONS = {
    "in_channels",
    "out_channels",
    "groups",
    "transposed",
    "output_padding",
    "padding_mode",
}
_TOLD_OF_NORMS = {"num_features", "eps", "momentum", "affine", "track_running_stats"}
_TOLD_OF_OTHERS = {"in_features", "out_features", "output_size", "start_dim", "end_dim", "inplace", "p"}
_TOLD_OF_RESNET = {"inplanes", "base_width", "_norm_layer", "downsample"}
_TOLD = {
    *(_TOLD_OF_WINDOWS | _TOLD_OF_CONVOLUTIONS | _TOLD_OF_NORMS | _TOLD_OF_OTHERS | _TOLD_OF_RESNET),
    *("_reversed_padding_repeated_twice", "count_include_pad", "divisor_override"),
}
"""Attributes that the text or the tensors of such a layer tell, so that stored studies keep their task."""


def held_sha256(model: nn.Module | None, *functions: Callable[..., Any] | None) -> str:
    """SHA-256 of what a model and functions hold beyond their own code; empty where they hold nothing.

    Args:
        model: Model whose layers' attributes and hooks count; its tensors and its text do not.
        functions: Functions and callable objects, each in its own role.

    Raises:
        TaskError: When one holds something that cannot be hashed.
    """
    walk = _Walk()
    modules = [] if model is None else list(model.named_modules())
    parts = [f"{name} {part}" for name, module in modules for part in walk.held_by_layer(module)]
    for role, function in enumerate(functions):
        parts += [f"{role} {part}" for part in walk.held_by(function)]
    return _sha256(*parts) if parts else ""


def text_of(model: nn.Module) -> str:
    """The model's text, the same in all processes: it may hold a function, and that its address."""
    return re.sub(r"0x[0-9a-f]+", "", repr(model))


class _Walk:
    """Digests of objects; each object is digested once."""

    def __init__(self) -> None:
        self._digests: dict[int, str] = {}
        self._alive: list[Any] = []  # an id is unique only while its object lives

    def held_by(self, thing: Any) -> list[str]:
        """What a function, class or callable object holds, its own code left out."""
        if thing is None:
            return []
        if isinstance(thing, functools.partial):
            return [*self.held_by(thing.func), self.digest(thing.args), self.digest(thing.keywords)]
        if isinstance(thing, types.MethodType):
            return [self.digest(thing.__self__), *self.held_by(thing.__func__)]
        if isinstance(thing, types.FunctionType):
            return list(self._held_by_function(thing))
        if inspect.isclass(thing):
            return list(self._held_by_class(thing))
        wrapped = getattr(thing, "__wrapped__", None)
        if wrapped is not None:
            return self.held_by(wrapped)
        return [] if inspect.isroutine(thing) else [self.digest(thing)]

    def digest(self, value: Any) -> str:
        """Digest of a value, its code included.

        Raises:
            TaskError: When it has no content that could be hashed.
        """
        if isinstance(value, _PLAIN):
            return _sha256(type(value).__name__, repr(value))
        if id(value) not in self._digests:
            self._alive.append(value)
            self._digests[id(value)] = f"inside {type(value).__qualname__}"  # met again: a circle
            self._digests[id(value)] = _sha256(type(value).__qualname__, *self._parts(value))
        return self._digests[id(value)]

    def _parts(self, value: Any) -> Iterator[str | bytes]:
        if isinstance(value, Tensor | np.ndarray):
            yield from self._parts_of_array(value)
        elif isinstance(value, types.ModuleType):
            yield value.__name__
        elif isinstance(value, logging.Logger):
            yield value.name
        elif isinstance(value, weakref.ref):
            yield self.digest(value())
        elif isinstance(value, nn.Module):
            yield from (source_sha256(type(value)), text_of(value), self.digest(value.state_dict()))
            yield from (part for module in value.modules() for part in self.held_by_layer(module))
        elif _is_code(value):
            yield source_sha256(value.func if isinstance(value, functools.partial) else value)
            yield from self.held_by(value)
        elif isinstance(value, Mapping):
            yield from (digest for pair in value.items() for digest in map(self.digest, pair))
        elif isinstance(value, list | tuple):
            yield from map(self.digest, value)
        elif isinstance(value, Set):
            yield from sorted(map(self.digest, value))
        else:
            yield from self._parts_of_object(value)

    def _parts_of_array(self, value: Tensor | np.ndarray) -> Iterator[str | bytes]:
        if isinstance(value, Tensor):
            value = value.detach().cpu().contiguous().reshape(value.shape)
            yield f"{value.dtype}{tuple(value.shape)}"
            yield value.reshape(-1).view(torch.uint8).numpy().tobytes()
        else:
            yield f"{value.dtype}{value.shape}"
            yield self.digest(value.tolist()) if value.dtype.hasobject else value.tobytes()

    def _parts_of_object(self, value: Any) -> Iterator[str]:
        """The parts from which ``copy`` would make the object again."""
        try:
            made_of = value.__reduce_ex__(4)
        except (*FOREIGN_ERRORS, pickle.PicklingError) as error:
            raise TaskError(
                f"the task's fingerprint cannot hold a {type(value).__module__}.{type(value).__qualname__}; "
                "let model, loss, metric and training step hold numbers, tensors, containers and functions"
            ) from error
        if isinstance(made_of, str):
            yield made_of
            return
        make, arguments, *state = made_of
        yield from (self.digest(make), self.digest(arguments))
        for part in state:
            yield self.digest(list(part) if isinstance(part, Iterator) else part)

    def held_by_layer(self, layer: nn.Module) -> Iterator[str]:
        """Attributes and hooks of one layer, and what its class holds; not its tensors."""
        told = _TOLD if _TOLD_LAYERS.fullmatch(type(layer).__module__) else set()
        for name, value in sorted(vars(layer).items()):
            if name not in _OF_EVERY_MODULE and name not in told:
                yield f"{name} {self.digest(value)}"
        for name in _HOOKS:
            yield from (f"{name} {self.digest(hook)}" for hook in getattr(layer, name).values())
        yield from self._held_by_class(type(layer))

    def _held_by_function(self, function: types.FunctionType) -> Iterator[str]:
        """Captured values and defaults; of the user's functions also what they read of their module."""
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name != "__class__" and cell != types.CellType():  # else a variable that was never set
                yield f"{name} {self.digest(cell.cell_contents)}"
        fixed = not _is_the_users(function) and "<locals>" not in function.__qualname__
        if (function.__defaults__ or function.__kwdefaults__) and not fixed:
            yield self.digest((function.__defaults__, function.__kwdefaults__))
        if _is_the_users(function):
            for name in sorted(set(_globals_of(function.__code__))):
                if name in function.__globals__ and not hasattr(builtins, name):
                    yield f"{name} {self.digest(function.__globals__[name])}"

    def _held_by_class(self, code: type) -> Iterator[str]:
        """The user's bases of a user's class, and what its methods hold."""
        for base in code.__mro__ if _is_the_users(code) else ():
            if base is not code and _is_the_users(base):
                yield source_sha256(base)
            for name, value in sorted(vars(base).items()) if _is_the_users(base) else ():
                function = getattr(value, "__func__", value)
                if isinstance(function, types.FunctionType):
                    yield from (f"{name} {part}" for part in self._held_by_function(function))


def _is_code(value: Any) -> bool:
    return isinstance(value, functools.partial | types.MethodType | type) or inspect.isroutine(value)


def _is_the_users(code: Any) -> bool:
    """Whether a class or function is neither ours nor of an installed package."""
    name = getattr(code, "__module__", None) or ""
    if name.partition(".")[0] in {_OURS, *_STANDARD}:
        return False
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return not file.startswith(_INSTALLED)


def _globals_of(code: types.CodeType) -> Iterator[str]:
    """Names of the module's variables that the code reads, nested functions included."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals_of(constant)


def _sha256(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else part.encode()
        digest.update(f"{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()
