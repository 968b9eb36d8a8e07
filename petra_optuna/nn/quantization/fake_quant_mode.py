"""Rounding of a forward pass as its INT8 file rounds: the rules of the conversion, on torch functions.

A layer rounds its weight, its input and its output, the last behind a batch norm and an activation that are
fused into it. Additions, products and concatenations with such outputs stay in INT8; reshaping and pooling
keep the scale of their input; any other function reads rounded values and computes in float. So a tensor is
rounded where it is read, once. Recurrent matrices and embedding tables are stored in INT8 and computed in
float.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from petra_optuna.nn.function_mode import FunctionMode
from petra_optuna.nn.quantization.observers import QuantState, RangeObserver
from petra_optuna.nn.quantization.torch_call import TorchCall
from petra_optuna.nn.quantization.written_out import WRITTEN_OUT

_LAYERS = ("conv1d", "conv2d", "conv3d", "linear")
_PRODUCTS = ("bmm", "matmul")
_RECURRENT = ("gru", "lstm", "rnn_relu", "rnn_tanh")
_WEIGHT_ONLY = (*_RECURRENT, "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "embedding")
"""Functions whose weight is stored in INT8 and computed in float."""
_IN_PLACE: Mapping[str, Callable[..., Tensor]] = {"add_": torch.add, "mul_": torch.mul}
_INT8_FUNCTIONS = ("add", "cat", "concat", "concatenate", "leaky_relu", "mul", "sigmoid", *_IN_PLACE)
"""Functions that stay in INT8 where they read a tensor that is in INT8."""
_FUSED = (
    *("clamp", "clamp_", "clip", "hardtanh", "relu", "relu6", "relu_"),
    *("clone", "contiguous", "dropout", "dropout1d", "dropout2d", "dropout3d", "to"),
)
"""Activations, whose effect is the range of what they return, and functions that the file does not have."""
_ADAPTIVE = ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d")
"""Pooling to a given size, which the file has as windows only where they are alike."""
_AVERAGES = ("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d")
_SAME_SCALE = (
    *(
        "__getitem__",
        "chunk",
        "flatten",
        "interpolate",
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "narrow",
        "pad",
    ),
    *(
        "permute",
        "reshape",
        "select",
        "split",
        "squeeze",
        "transpose",
        "unbind",
        "unflatten",
        "unsqueeze",
        "view",
    ),
    *_AVERAGES,
    *_ADAPTIVE,
)
"""Functions that return values of the scale of their input."""
_SPLITS = ("chunk", "split")
"""Functions that make weights of a weight: the file stores the parts."""
_QUERIES = ("__get__", "data_ptr", "dim", "is_contiguous", "is_floating_point", "numel", "size", "stride")

Stage = Literal["layer", "open", "rounded"]
"""``layer``: straight from a layer, so that a batch norm is fused; ``open``: still to be rounded."""


@dataclasses.dataclass
class _TrackedTensor:
    """A tensor on the INT8 path, held so that no other tensor gets its identity.

    Attributes:
        tensor: Tensor itself.
        stage: Whether and where it is rounded.
        reached: Whether a function in INT8 made it; else it is only read by one, and what other functions
            make of it is in float.
        rounded: The tensor after rounding, once it has been read.
        observer: Observer of the range that it was rounded within.
    """

    tensor: Tensor
    stage: Stage
    reached: bool = True
    rounded: Tensor | None = None
    observer: RangeObserver | None = None


class FakeQuantMode(FunctionMode):
    """Rounds one forward pass as its INT8 file will.

    Args:
        state: Observers and weights of the model.
    """

    def __init__(self, state: QuantState) -> None:
        super().__init__()
        self._state = state
        self._tracked: dict[int, _TrackedTensor] = {}
        self._calls: Counter[tuple[str, int, int]] = Counter()
        # Tensors made of parameters and buffers alone, held like tracked ones, with the owners of the former.
        self._computed: dict[int, tuple[Tensor, tuple[str, ...]]] = {}
        self._parts: set[int] = set()

    def _reached(self, value: Any) -> _TrackedTensor | None:
        """The record of a value that a function in INT8 made; None for anything else."""
        tracked = self._tracked.get(id(value))
        return tracked if tracked is not None and tracked.reached else None

    def finish(self, output: Tensor) -> Tensor:
        """The model's output as the file returns it, once this is no longer active."""
        return self._read(output, "output", 0) if id(output) in self._tracked else output

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the call as the file computes it, with rounded inputs and weights."""
        call = TorchCall(func, args, kwargs)
        if call.name in _QUERIES:
            return call.run()
        if call.name in WRITTEN_OUT:
            with self:
                return WRITTEN_OUT[call.name](*args, **kwargs)
        if call.name not in _PRODUCTS and self._is_constant(call):
            return self._run_in_float(call)
        if call.name in _LAYERS and self._owners_of(call.get(1, "weight")):
            return self._run_layer(call)
        if call.name in _PRODUCTS:
            return self._run_product(call)
        if call.name in _WEIGHT_ONLY:
            return self._run_in_float(call.map(lambda tensor: self._store(tensor, call.name)))
        if call.name in _INT8_FUNCTIONS and any(self._reached(tensor) for tensor in call.tensors()):
            return self._run_in_int8(call)
        tracked = self._reached(call.get(0, "input"))
        if tracked is None:
            return self._run_in_float(call)
        if call.name == "silu":
            return self._run_silu(call)
        if call.name in _FUSED or (call.name == "batch_norm" and tracked.stage == "layer"):
            return self._track(call.run(), "rounded" if tracked.stage == "rounded" else "open")
        return self._keep_scale(call) if _keeps_scale(call) else self._run_in_float(call)

    def _run_layer(self, call: TorchCall) -> Any:
        weight = call.get(1, "weight")
        weight = self._state.round_owned(weight, self._owners_of(weight), limit=self._state.limit)
        values, bias = self._read(call.get(0, "input"), call.name, 0), call.get(2, "bias")
        if call.name != "linear" or values.dim() == 2 or bias is None:
            return self._track(call.replace(0, "input", values).replace(1, "weight", weight).run(), "layer")
        # The file has a product and an addition there, each with a scale of its own.
        product = self._track(functional.linear(values, weight), "open")
        return self._track(self._read(product, call.name, 1) + self._read(bias, call.name, 2), "open")

    def _run_product(self, call: TorchCall) -> Any:
        left, right = call.get(0, "input"), call.get(1, "other")
        if self._state.is_weight(left) and self._state.is_weight(right):  # the factors of a matrix
            return call.map(lambda tensor: self._store(tensor, call.name)).run()
        if not self._state.is_weight(right):
            return self._track(self._read_all(call).run(), "layer")
        if right.dim() > 2:  # INT8 kernels take matrices
            return self._run_in_float(call)
        weight = self._state.round_weight(right, limit=self._state.limit, axis=right.dim() - 1)
        values = self._read(left, call.name, 0)
        return self._track(call.replace(0, "input", values).replace(1, "other", weight).run(), "layer")

    def _run_in_int8(self, call: TorchCall) -> Any:
        rounded = self._read_all(call)
        if call.name not in _IN_PLACE:
            return self._track(rounded.run(), "open")
        result = _IN_PLACE[call.name](*rounded.args, **rounded.kwargs)
        return self._track(call.args[0].copy_(result), "open")

    def _run_silu(self, call: TorchCall) -> Any:
        """Compute x sigmoid(x), as the file does."""
        values = self._read(call.get(0, "input"), call.name, 0)
        gate = self._track(values.sigmoid(), "open")
        return self._track(values * self._read(gate, call.name, 1), "open")

    def _keep_scale(self, call: TorchCall) -> Any:
        values = self._read(call.get(0, "input"), call.name, 0)
        observer = self._tracked[id(values)].observer
        result = call.replace(0, "input", values).run()
        if call.name in _AVERAGES and observer is not None and not self._state.calibrating:
            result = observer.round(result)
        return self._track(result, "rounded", observer)

    def _run_in_float(self, call: TorchCall) -> Any:
        result = call.map(
            lambda tensor: self._read(tensor, call.name, 0) if id(tensor) in self._tracked else tensor
        ).run()
        self._tracked.pop(id(result), None)  # a function that writes in place returns a tracked tensor
        self._note_computed(call, result)
        return result

    def _is_constant(self, call: TorchCall) -> bool:
        """Whether a call reads parameters, buffers and what is computed of them alone, as a layer never does.

        The file computes such values before any input is known, from the weights as they are.
        """
        read = list(call.tensors())
        return bool(read) and all(
            id(tensor) in self._computed or id(tensor) in self._state.sources for tensor in read
        )

    def _note_computed(self, call: TorchCall, result: Any) -> None:
        """Remember who owns a weight that is computed of parameters and buffers alone."""
        owners: dict[str, None] = {}
        read = list(call.tensors())
        for tensor in read:
            if id(tensor) in self._computed:
                owners |= dict.fromkeys(self._computed[id(tensor)][1])
            elif id(tensor) in self._state.sources:
                owners |= dict.fromkeys(self._state.sources[id(tensor)])
            else:
                return
        if not read:
            return
        of_weight = self._state.is_weight(read[0]) or id(read[0]) in self._parts
        for tensor in result if isinstance(result, list | tuple) else (result,):
            if isinstance(tensor, Tensor):
                self._computed[id(tensor)] = (tensor, tuple(owners))
                if of_weight and call.name in _SPLITS:
                    self._parts.add(id(tensor))

    def _owners_of(self, weight: Any) -> tuple[str, ...]:
        """Names of the modules whose parameters a weight is or is computed of; empty for anything else.

        What a ``forward`` of its own computes of parameters is no weight: the file has it as it is written.
        Parts that are split off a weight are weights.
        """
        if self._state.is_weight(weight):
            return tuple(self._state.owners[id(weight)])
        owners = self._computed[id(weight)][1] if id(weight) in self._computed else ()
        if id(weight) in self._parts:
            return owners
        return owners if self._state.computing.issuperset(owners) else ()

    def _store(self, tensor: Tensor, name: str) -> Tensor:
        """A weight as it is stored for arithmetic in float; one scale a column of a table, else a row."""
        if not self._state.is_weight(tensor):
            return tensor
        is_table = name == "embedding" or name.startswith("conv_transpose")
        return self._state.round_weight(tensor, axis=1 if is_table else 0)

    def _read_all(self, call: TorchCall) -> TorchCall:
        indices = iter(range(sum(1 for _ in call.tensors())))
        return call.map(lambda tensor: self._read(tensor, call.name, next(indices)))

    def _read(self, tensor: Tensor, name: str, index: int) -> Tensor:
        """The tensor after rounding, the same for every reader.

        Args:
            tensor: Any tensor.
            name: Name of the function that reads it.
            index: Which of the tensors that the function reads it is.
        """
        if not tensor.is_floating_point() or tensor.numel() == 0:
            return tensor
        tracked = self._tracked.setdefault(id(tensor), _TrackedTensor(tensor, "open", reached=False))
        if tracked.stage == "rounded":
            return tensor
        if tracked.rounded is None:
            reader = (name, index, tensor.dim())
            self._calls[reader] += 1
            observer = self._state.observe(
                (*reader, self._calls[reader]), tensor, may_mask=name not in (*_LAYERS, *_PRODUCTS)
            )
            if observer is None or self._state.calibrating:
                tracked.rounded = tensor.view_as(tensor)
            else:
                tracked.rounded = observer.round(tensor.float())
            rounded = _TrackedTensor(tracked.rounded, "rounded", tracked.reached, observer=observer)
            self._tracked[id(tracked.rounded)] = rounded
        return tracked.rounded

    def _track(self, result: Any, stage: Stage, observer: RangeObserver | None = None) -> Any:
        for tensor in result if isinstance(result, list | tuple) else (result,):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self._tracked[id(tensor)] = _TrackedTensor(tensor, stage, observer=observer)
        return result


def _keeps_scale(call: TorchCall) -> bool:
    """Whether the file returns values of the scale of the input.

    Pooling to one value is a mean or a maximum over axes there, and pooling by unlike windows a sum of parts.
    """
    if call.name not in _ADAPTIVE:
        return call.name in _SAME_SCALE
    values, size = call.get(0, "input"), call.get(1, "output_size")
    axes = values.shape[-int(call.name[-2]) :]
    wanted = [size] * len(axes) if isinstance(size, int) else size
    pairs = [(axis, axis if kept is None else kept) for axis, kept in zip(axes, wanted, strict=True)]
    return any(kept > 1 for _, kept in pairs) and all(axis % kept == 0 for axis, kept in pairs)
