"""Which tensors of a forward pass an INT8 file rounds: the rules of its conversion, on torch functions.

A layer rounds its weight, its input and its output, the last behind a batch norm and an activation that fold
into it. Additions, products and concatenations with such outputs stay in INT8; reshaping and pooling keep the
steps of their input; any other function reads rounded values and computes in float. So a tensor is rounded
where it is read, once. Recurrent matrices and embedding tables are stored in INT8 and computed in float.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from petra_optuna.nn.function_mode import FunctionMode
from petra_optuna.nn.quantization.observers import QuantState, RangeObserver

_LAYERS = ("conv1d", "conv2d", "linear")
_PRODUCTS = ("bmm", "matmul", "scaled_dot_product_attention")
_RECURRENT = ("gru", "lstm", "rnn_relu", "rnn_tanh")
_STORED = (*_RECURRENT, "conv_transpose1d", "conv_transpose2d", "embedding")
_IN_PLACE: Mapping[str, Callable[..., Tensor]] = {"add_": torch.add, "mul_": torch.mul}
_JOINTS = ("add", "cat", "concat", "concatenate", "leaky_relu", "mul", "sigmoid", *_IN_PLACE)
_FOLDED = (
    *("clamp", "clamp_", "clip", "hardtanh", "relu", "relu6", "relu_"),
    *("clone", "contiguous", "dropout", "dropout1d", "dropout2d", "to"),
)
"""Activations, whose effect is the range of what they return, and what the file has not."""
_AVERAGES = ("avg_pool1d", "avg_pool2d")
_SAME_STEPS = (
    *("__getitem__", "chunk", "flatten", "interpolate", "max_pool1d", "max_pool2d", "narrow", "pad"),
    *("permute", "reshape", "select", "split", "squeeze", "transpose", "unbind", "unsqueeze", "view"),
    *_AVERAGES,
)
_QUESTIONS = ("__get__", "data_ptr", "dim", "is_contiguous", "is_floating_point", "numel", "size", "stride")

State = Literal["layer", "open", "rounded"]


@dataclasses.dataclass(frozen=True)
class _Call:
    """A torch function and what it is called with."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    named: dict[str, Any]

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", "")

    def run(self) -> Any:
        return self.function(*self.args, **self.named)

    def get(self, place: int, name: str) -> Any:
        return self.args[place] if place < len(self.args) else self.named.get(name)

    def put(self, place: int, name: str, value: Any) -> _Call:
        if place < len(self.args):
            return dataclasses.replace(self, args=(*self.args[:place], value, *self.args[place + 1 :]))
        return dataclasses.replace(self, named={**self.named, name: value})

    def tensors(self) -> Iterator[Tensor]:
        found: list[Tensor] = []
        self.map(found.append)
        yield from found

    def map(self, change: Callable[[Tensor], Any]) -> _Call:
        """The call with every tensor changed, those in lists as well."""

        def each(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return type(value)([each(item) for item in value])
            return change(value) if isinstance(value, Tensor) else value

        named = {name: each(value) for name, value in self.named.items()}
        return dataclasses.replace(self, args=tuple(each(value) for value in self.args), named=named)


@dataclasses.dataclass
class _Known:
    """A tensor on the INT8 path, held so that its identity stays its own.

    Attributes:
        tensor: Itself.
        state: ``layer``: straight from a layer, so that a batch norm folds. ``open``: to be rounded where it
            is read. ``rounded``: rounded already.
        rounded: The same after rounding, once it has been read.
        steps: What it was rounded within.
    """

    tensor: Tensor
    state: State
    rounded: Tensor | None = None
    steps: RangeObserver | None = None


class FakeQuantMode(FunctionMode):
    """Active during one forward pass.

    Args:
        grids: Ranges and weights of the model.
    """

    def __init__(self, grids: QuantState) -> None:
        super().__init__()
        self._grids = grids
        self._known: dict[int, _Known] = {}
        self._calls: Counter[tuple[str, int, int]] = Counter()

    def finish(self, output: Tensor) -> Tensor:
        """The model's output as the file returns it, once this is no longer active."""
        return self._read(output, "output", 0) if id(output) in self._known else output

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the call as the file computes it, with rounded inputs and weights."""
        call = _Call(func, args, kwargs)
        if call.name in _QUESTIONS:
            return call.run()
        if call.name in _LAYERS and self._grids.is_weight(call.get(1, "weight")):
            return self._layer(call)
        if call.name in _PRODUCTS:
            return self._product(call)
        if call.name in _STORED:
            return self._float(call.map(lambda tensor: self._store(tensor, call.name)))
        if call.name in _JOINTS and any(id(tensor) in self._known for tensor in call.tensors()):
            return self._joint(call)
        known = self._known.get(id(call.get(0, "input")))
        if known is None:
            return self._float(call)
        if call.name == "silu":
            return self._silu(call)
        if call.name in _FOLDED or (call.name == "batch_norm" and known.state == "layer"):
            return self._mark(call.run(), "rounded" if known.state == "rounded" else "open")
        return self._same_steps(call) if call.name in _SAME_STEPS else self._float(call)

    def _layer(self, call: _Call) -> Any:
        weight = self._grids.round_weight(call.get(1, "weight"), limit=self._grids.limit)
        values, bias = self._read(call.get(0, "input"), call.name, 0), call.get(2, "bias")
        if call.name != "linear" or values.dim() == 2 or bias is None:
            return self._mark(call.put(0, "input", values).put(1, "weight", weight).run(), "layer")
        # The file has a product and an addition there, each with steps of its own.
        product = self._mark(functional.linear(values, weight), "open")
        return self._mark(self._read(product, call.name, 1) + self._read(bias, call.name, 2), "open")

    def _product(self, call: _Call) -> Any:
        left, right = call.get(0, "input"), call.get(1, "other")
        if self._grids.is_weight(left) and self._grids.is_weight(right):  # the factors of a matrix
            return call.map(lambda tensor: self._store(tensor, call.name)).run()
        if not self._grids.is_weight(right):
            return self._mark(self._read_all(call).run(), "layer")
        weight = self._grids.round_weight(right, limit=self._grids.limit, axis=right.dim() - 1)
        values = self._read(left, call.name, 0)
        return self._mark(call.put(0, "input", values).put(1, "other", weight).run(), "layer")

    def _joint(self, call: _Call) -> Any:
        read = self._read_all(call)
        if call.name not in _IN_PLACE:
            return self._mark(read.run(), "open")
        result = _IN_PLACE[call.name](*read.args, **read.named)
        return self._mark(call.args[0].copy_(result), "open")

    def _silu(self, call: _Call) -> Any:
        """The file has x sigmoid(x)."""
        values = self._read(call.get(0, "input"), call.name, 0)
        gate = self._mark(values.sigmoid(), "open")
        return self._mark(values * self._read(gate, call.name, 1), "open")

    def _same_steps(self, call: _Call) -> Any:
        values = self._read(call.get(0, "input"), call.name, 0)
        steps = self._known[id(values)].steps
        result = call.put(0, "input", values).run()
        if call.name in _AVERAGES and steps is not None and not self._grids.calibrating:
            result = steps.round(result)
        return self._mark(result, "rounded", steps)

    def _float(self, call: _Call) -> Any:
        result = call.map(
            lambda tensor: self._read(tensor, call.name, 0) if id(tensor) in self._known else tensor
        ).run()
        self._known.pop(id(result), None)  # a function that writes in place returns a known tensor
        return result

    def _store(self, tensor: Tensor, name: str) -> Tensor:
        """A weight as it is stored for arithmetic in float; one scale a column of a table, else a row."""
        if not self._grids.is_weight(tensor):
            return tensor
        table = name == "embedding" or name.startswith("conv_transpose")
        return self._grids.round_weight(tensor, axis=1 if table else 0)

    def _read_all(self, call: _Call) -> _Call:
        places = iter(range(sum(1 for _ in call.tensors())))
        return call.map(lambda tensor: self._read(tensor, call.name, next(places)))

    def _read(self, tensor: Tensor, name: str, place: int) -> Tensor:
        """The tensor after rounding, the same for every reader."""
        if not tensor.is_floating_point() or tensor.numel() == 0:
            return tensor
        known = self._known.setdefault(id(tensor), _Known(tensor, "open"))
        if known.state == "rounded":
            return tensor
        if known.rounded is None:
            place_of_call = (name, place, tensor.dim())
            self._calls[place_of_call] += 1
            steps = self._grids.range_of((*place_of_call, self._calls[place_of_call]), tensor)
            quiet = steps is None or self._grids.calibrating
            known.rounded = tensor.view_as(tensor) if quiet or steps is None else steps.round(tensor.float())
            self._mark(known.rounded, "rounded", steps)
        return known.rounded

    def _mark(self, result: Any, state: State, steps: RangeObserver | None = None) -> Any:
        for tensor in result if isinstance(result, list | tuple) else (result,):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self._known[id(tensor)] = _Known(tensor, state, steps=steps)
        return result
