"""ONNX's operators as functions of PyTorch: those that the project's files contain.

PyTorch is given as an argument, so that importing this module loads nothing. Shapes and other integers are
tensors on the CPU, also where the values are on a GPU, so reading one never waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from petra_optuna.errors import RuntimeFailed
from petra_optuna.runtimes.torch_layers import LayerOperators
from petra_optuna.runtimes.torch_values import Attributes, Tensor, numbers, refuse

_PLAIN: Mapping[str, str] = {
    "Abs": "abs",
    "Acos": "acos",
    "Add": "add",
    "And": "logical_and",
    "Asin": "asin",
    "Atan": "atan",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Equal": "eq",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "Greater": "gt",
    "GreaterOrEqual": "ge",
    "IsNaN": "isnan",
    "Less": "lt",
    "LessOrEqual": "le",
    "Log": "log",
    "MatMul": "matmul",
    "Mul": "mul",
    "Neg": "neg",
    "Not": "logical_not",
    "Or": "logical_or",
    "Pow": "pow",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Sqrt": "sqrt",
    "Sub": "sub",
    "Tan": "tan",
    "Tanh": "tanh",
    "Where": "where",
    "Xor": "logical_xor",
}
"""Operators that are one function of the same arguments."""


class Operators(LayerOperators):
    """Finds the function of a node.

    Args:
        torch: The module ``torch``.
        types: ONNX's number of an element type -> ``torch.dtype`` to which ``Cast`` casts.
        place: Moves a tensor to where the session computes with it.
    """

    def __init__(self, torch: Any, types: Mapping[int, Any], place: Callable[[Tensor], Tensor]) -> None:
        super().__init__(torch, place)
        self._types = types
        self._recurrent: dict[int, tuple[Tensor, list[Tensor]]] = {}

    def find(self, op_type: str) -> Callable[..., Tensor]:
        """The function of an operator: from attributes and inputs to its output or outputs.

        Raises:
            RuntimeFailed: When there is none.
        """
        if op_type in _PLAIN:
            plain = getattr(self._torch, _PLAIN[op_type])
            return lambda attributes, *inputs: plain(*inputs)
        function: Callable[..., Tensor] | None = getattr(self, f"_op_{op_type.lower()}", None)
        if function is None:
            raise RuntimeFailed(
                f"PyTorch cannot load the file: operator {op_type} is not among those it knows"
            )
        return function

    def _op_identity(self, at: Attributes, x: Tensor) -> Tensor:
        return x

    def _op_sum(self, at: Attributes, *terms: Tensor) -> Tensor:
        return sum(terms[1:], terms[0])

    def _op_div(self, at: Attributes, x: Tensor, y: Tensor) -> Tensor:
        rounding = None if x.is_floating_point() else "trunc"
        return self._torch.div(x, y, rounding_mode=rounding)

    def _op_cast(self, at: Attributes, x: Tensor) -> Tensor:
        return self._place(x.to(self._types[at["to"]]))

    def _op_constant(self, at: Attributes) -> Tensor:
        return self._place(at["value"] if "value" in at else self._torch.tensor(next(iter(at.values()))))

    def _op_concat(self, at: Attributes, *parts: Tensor) -> Tensor:
        return self._torch.cat(parts, at["axis"])

    def _op_constantofshape(self, at: Attributes, shape: Tensor) -> Tensor:
        value = at.get("value")
        return self._place(self._torch.full(numbers(shape), 0.0 if value is None else value.item()))

    def _op_expand(self, at: Attributes, x: Tensor, shape: Tensor) -> Tensor:
        return x.expand(self._torch.broadcast_shapes(x.shape, numbers(shape)))

    def _op_flatten(self, at: Attributes, x: Tensor) -> Tensor:
        axis = at.get("axis", 1)
        return x.reshape(x.shape[:axis].numel(), -1)

    def _op_gather(self, at: Attributes, x: Tensor, indices: Tensor) -> Tensor:
        axis, rows = at.get("axis", 0), indices.to(x.device).long()
        rows = self._torch.where(rows < 0, rows + x.shape[axis], rows)
        picked = x.index_select(axis, rows.reshape(-1))
        return picked.reshape(*x.shape[:axis], *rows.shape, *x.shape[axis % x.dim() + 1 :])

    def _op_reshape(self, at: Attributes, x: Tensor, shape: Tensor) -> Tensor:
        asked = numbers(shape)
        if not at.get("allowzero"):
            asked = [x.shape[index] if size == 0 else size for index, size in enumerate(asked)]
        return x.reshape(asked)

    def _op_shape(self, at: Attributes, x: Tensor) -> Tensor:
        return self._torch.tensor(list(x.shape[at.get("start", 0) : at.get("end")]))

    def _op_slice(
        self,
        at: Attributes,
        x: Tensor,
        starts: Tensor,
        ends: Tensor,
        axes: Tensor = None,
        steps: Tensor = None,
    ) -> Tensor:
        first, last = numbers(starts), numbers(ends)
        sliced = numbers(axes) if axes is not None else range(len(first))
        strides = numbers(steps) if steps is not None else [1] * len(first)
        slices = [slice(None)] * x.dim()
        for start, end, axis, step in zip(first, last, sliced, strides, strict=True):
            size = x.shape[axis]
            slices[axis] = slice(max(-size, min(start, size)), max(-size, min(end, size)), step)
        return x[tuple(slices)]

    def _op_split(self, at: Attributes, x: Tensor, sizes: Tensor = None) -> Tensor:
        axis = at.get("axis", 0)
        parts = numbers(sizes) if sizes is not None else -(-x.shape[axis] // at["num_outputs"])
        return self._torch.split(x, parts, axis)

    def _op_squeeze(self, at: Attributes, x: Tensor, axes: Tensor = None) -> Tensor:
        return x.squeeze() if axes is None else x.squeeze(tuple(numbers(axes)))

    def _op_unsqueeze(self, at: Attributes, x: Tensor, axes: Tensor) -> Tensor:
        dimensions = x.dim() + len(numbers(axes))
        for axis in sorted(number % dimensions for number in numbers(axes)):
            x = x.unsqueeze(axis)
        return x

    def _op_transpose(self, at: Attributes, x: Tensor) -> Tensor:
        return x.permute(at.get("perm", list(reversed(range(x.dim())))))

    def _op_gru(
        self,
        at: Attributes,
        x: Tensor,
        w: Tensor,
        r: Tensor,
        b: Tensor = None,
        lengths: Tensor = None,
        h: Tensor = None,
    ) -> Tensor:
        if not at.get("linear_before_reset"):
            raise RuntimeFailed("PyTorch cannot run the file: a GRU that resets before the product")
        _refuse_recurrent("GRU", at, x, lengths)
        weights = self._gates((1, 0, 2), w, r, b)
        start = self._start(x, r, h)
        outputs, last = self._torch.gru(
            _in_time(at, x), start, weights, True, 1, 0.0, False, len(w) == 2, False
        )
        return _steps(_in_time(at, outputs), len(w)), last

    def _op_lstm(
        self,
        at: Attributes,
        x: Tensor,
        w: Tensor,
        r: Tensor,
        b: Tensor = None,
        lengths: Tensor = None,
        h: Tensor = None,
        c: Tensor = None,
        peepholes: Tensor = None,
    ) -> Tensor:
        if peepholes is not None:
            raise RuntimeFailed("PyTorch cannot run the file: an LSTM with peepholes")
        _refuse_recurrent("LSTM", at, x, lengths)
        weights = self._gates((0, 2, 3, 1), w, r, b)
        starts = self._start(x, r, h), self._start(x, r, c)
        outputs, last, cell = self._torch.lstm(
            _in_time(at, x), starts, weights, True, 1, 0.0, False, len(w) == 2, False
        )
        return _steps(_in_time(at, outputs), len(w)), last, cell

    def _gates(self, order: Sequence[int], w: Tensor, r: Tensor, b: Tensor) -> list[Tensor]:
        """Matrices and biases of each direction with their gates in PyTorch's order, computed once."""
        if id(w) not in self._recurrent:
            if b is None:
                b = self._torch.zeros(len(w), 2 * w.shape[1], dtype=w.dtype, device=w.device)
            parts: list[Tensor] = []
            for direction in range(len(w)):
                for matrix in (w[direction], r[direction], *b[direction].chunk(2)):
                    gates = matrix.chunk(len(order))
                    parts.append(self._torch.cat([gates[index] for index in order]))
            self._recurrent[id(w)] = (w, parts)  # holds w, so that its id stays its own
        return self._recurrent[id(w)][1]

    def _start(self, x: Tensor, r: Tensor, state: Tensor) -> Tensor:
        if state is not None:
            return state.contiguous()
        return self._torch.zeros(len(r), x.shape[1], r.shape[2], dtype=x.dtype, device=x.device)


def _steps(outputs: Tensor, directions: int) -> Tensor:
    """Outputs (T, B, directions * H) in ONNX's order: (T, directions, B, H)."""
    steps, batch, _ = outputs.shape
    return outputs.reshape(steps, batch, directions, -1).transpose(1, 2)


def _in_time(at: Attributes, x: Tensor) -> Tensor:
    """The steps in the order in which the layer reads them."""
    return x.flip(0) if at.get("direction", "forward") == "reverse" else x


def _refuse_recurrent(kind: str, at: Attributes, x: Tensor, lengths: Tensor) -> None:
    """Refuse what PyTorch's layers do not have.

    Raises:
        RuntimeFailed: When the file asks for it.
    """
    if lengths is not None and any(length != len(x) for length in numbers(lengths)):
        raise RuntimeFailed(f"PyTorch cannot run the file: a {kind} over sequences of several lengths")
    refuse(at, layout=0, input_forget=0, clip=None, activations=None)
