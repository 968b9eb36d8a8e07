"""ONNX's operators as functions of PyTorch: those that the project's files contain.

PyTorch is given as an argument, so that importing this module loads nothing. Shapes and other integers are
tensors on the CPU, also where the values are on a GPU, so reading one never waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from petra_optuna.errors import RuntimeFailed

Attributes = Mapping[str, Any]
Tensor = Any
"""``torch.Tensor``, or None for an input that is left out."""

_PLAIN: Mapping[str, str] = {
    "Abs": "abs",
    "Add": "add",
    "Equal": "eq",
    "Erf": "erf",
    "Exp": "exp",
    "Greater": "gt",
    "Less": "lt",
    "Log": "log",
    "MatMul": "matmul",
    "Mul": "mul",
    "Neg": "neg",
    "Not": "logical_not",
    "Pow": "pow",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Sqrt": "sqrt",
    "Sub": "sub",
    "Tanh": "tanh",
    "Where": "where",
}
"""Operators that are one function of the same arguments."""


class Operators:
    """Finds the function of a node.

    Args:
        torch: The module ``torch``.
        types: ONNX's number of an element type -> ``torch.dtype`` to which ``Cast`` casts.
        place: Moves a tensor to where the session computes with it.
    """

    def __init__(self, torch: Any, types: Mapping[int, Any], place: Callable[[Tensor], Tensor]) -> None:
        self._torch = torch
        self._functional = torch.nn.functional
        self._types = types
        self._place = place
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

    def _op_clip(self, at: Attributes, x: Tensor, low: Tensor = None, high: Tensor = None) -> Tensor:
        ends = (None if end is None else end.item() for end in (low, high))
        return self._torch.clamp(x, *ends) if low is not None or high is not None else x

    def _op_gelu(self, at: Attributes, x: Tensor) -> Tensor:
        return self._functional.gelu(x, approximate=at.get("approximate", "none"))

    def _op_hardsigmoid(self, at: Attributes, x: Tensor) -> Tensor:
        return self._torch.clamp(at.get("alpha", 0.2) * x + at.get("beta", 0.5), 0, 1)

    def _op_hardswish(self, at: Attributes, x: Tensor) -> Tensor:
        return self._functional.hardswish(x)

    def _op_leakyrelu(self, at: Attributes, x: Tensor) -> Tensor:
        return self._functional.leaky_relu(x, at.get("alpha", 0.01))

    def _op_softmax(self, at: Attributes, x: Tensor) -> Tensor:
        return self._torch.softmax(x, at.get("axis", -1))

    def _op_gemm(self, at: Attributes, x: Tensor, y: Tensor, bias: Tensor = None) -> Tensor:
        x, y = (value.T if at.get(name) else value for value, name in ((x, "transA"), (y, "transB")))
        if bias is None:
            return at.get("alpha", 1.0) * self._torch.matmul(x, y)
        return self._torch.addmm(bias, x, y, beta=at.get("beta", 1.0), alpha=at.get("alpha", 1.0))

    def _op_conv(self, at: Attributes, x: Tensor, weight: Tensor, bias: Tensor = None) -> Tensor:
        count = weight.dim() - 2
        function = (self._functional.conv1d, self._functional.conv2d, self._functional.conv3d)[count - 1]
        x, padding = self._padded(x, at, count)
        strides, dilations = at.get("strides", [1] * count), at.get("dilations", [1] * count)
        return function(x, weight, bias, strides, padding, dilations, at.get("group", 1))

    def _op_maxpool(self, at: Attributes, x: Tensor) -> Tensor:
        size = at["kernel_shape"]
        function = (self._functional.max_pool1d, self._functional.max_pool2d)[len(size) - 1]
        x, padding = self._padded(x, at, len(size), value=float("-inf"))
        dilations = at.get("dilations", [1] * len(size))
        strides = at.get("strides", [1] * len(size))
        return function(x, size, strides, padding, dilations, bool(at.get("ceil_mode")))

    def _op_averagepool(self, at: Attributes, x: Tensor) -> Tensor:
        size = at["kernel_shape"]
        begins, ends = _pads(at, len(size))
        if begins != ends:
            raise RuntimeFailed("PyTorch cannot run the file: an AveragePool with unequal padding")
        function = (self._functional.avg_pool1d, self._functional.avg_pool2d)[len(size) - 1]
        strides, counted = at.get("strides", [1] * len(size)), bool(at.get("count_include_pad"))
        return function(x, size, strides, begins, bool(at.get("ceil_mode")), counted)

    def _op_globalaveragepool(self, at: Attributes, x: Tensor) -> Tensor:
        return x.mean(tuple(range(2, x.dim())), keepdim=True)

    def _op_reducemean(self, at: Attributes, x: Tensor, axes: Tensor = None) -> Tensor:
        return self._reduced(self._torch.mean, at, x, axes)

    def _op_reducemax(self, at: Attributes, x: Tensor, axes: Tensor = None) -> Tensor:
        return self._reduced(self._torch.amax, at, x, axes)

    def _op_reducesum(self, at: Attributes, x: Tensor, axes: Tensor = None) -> Tensor:
        return self._reduced(self._torch.sum, at, x, axes)

    def _reduced(self, function: Callable[..., Tensor], at: Attributes, x: Tensor, axes: Tensor) -> Tensor:
        chosen = _numbers(axes) if axes is not None else at.get("axes", list(range(x.dim())))
        return function(x, chosen, keepdim=bool(at.get("keepdims", 1)))

    def _op_batchnormalization(
        self, at: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
    ) -> Tensor:
        return self._functional.batch_norm(x, mean, variance, scale, bias, eps=at.get("epsilon", 1e-5))

    def _op_layernormalization(self, at: Attributes, x: Tensor, scale: Tensor, bias: Tensor = None) -> Tensor:
        shape = x.shape[at.get("axis", -1) :]
        return self._functional.layer_norm(x, shape, scale, bias, at.get("epsilon", 1e-5))

    def _op_concat(self, at: Attributes, *parts: Tensor) -> Tensor:
        return self._torch.cat(parts, at["axis"])

    def _op_constantofshape(self, at: Attributes, shape: Tensor) -> Tensor:
        value = at.get("value")
        return self._place(self._torch.full(_numbers(shape), 0.0 if value is None else value.item()))

    def _op_expand(self, at: Attributes, x: Tensor, shape: Tensor) -> Tensor:
        return x.expand(self._torch.broadcast_shapes(x.shape, _numbers(shape)))

    def _op_flatten(self, at: Attributes, x: Tensor) -> Tensor:
        axis = at.get("axis", 1)
        return x.reshape(x.shape[:axis].numel(), -1)

    def _op_gather(self, at: Attributes, x: Tensor, indices: Tensor) -> Tensor:
        axis, rows = at.get("axis", 0), indices.to(x.device).long()
        rows = self._torch.where(rows < 0, rows + x.shape[axis], rows)
        picked = x.index_select(axis, rows.reshape(-1))
        return picked.reshape(*x.shape[:axis], *rows.shape, *x.shape[axis % x.dim() + 1 :])

    def _op_reshape(self, at: Attributes, x: Tensor, shape: Tensor) -> Tensor:
        asked = _numbers(shape)
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
        first, last = _numbers(starts), _numbers(ends)
        sliced = _numbers(axes) if axes is not None else range(len(first))
        strides = _numbers(steps) if steps is not None else [1] * len(first)
        slices = [slice(None)] * x.dim()
        for start, end, axis, step in zip(first, last, sliced, strides, strict=True):
            slices[axis] = slice(start, end, step)
        return x[tuple(slices)]

    def _op_split(self, at: Attributes, x: Tensor, sizes: Tensor = None) -> Tensor:
        axis = at.get("axis", 0)
        parts = _numbers(sizes) if sizes is not None else -(-x.shape[axis] // at["num_outputs"])
        return self._torch.split(x, parts, axis)

    def _op_squeeze(self, at: Attributes, x: Tensor, axes: Tensor = None) -> Tensor:
        return x.squeeze() if axes is None else x.squeeze(tuple(_numbers(axes)))

    def _op_unsqueeze(self, at: Attributes, x: Tensor, axes: Tensor) -> Tensor:
        dimensions = x.dim() + len(_numbers(axes))
        for axis in sorted(number % dimensions for number in _numbers(axes)):
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
        weights = self._gates((1, 0, 2), w, r, b)
        start = self._start(x, r, h)
        outputs, last = self._torch.gru(x, start, weights, True, 1, 0.0, False, len(w) == 2, False)
        return _steps(outputs, len(w)), last

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
    ) -> Tensor:
        weights = self._gates((0, 2, 3, 1), w, r, b)
        starts = self._start(x, r, h), self._start(x, r, c)
        outputs, last, cell = self._torch.lstm(x, starts, weights, True, 1, 0.0, False, len(w) == 2, False)
        return _steps(outputs, len(w)), last, cell

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

    def _padded(self, x: Tensor, at: Attributes, count: int, value: float = 0.0) -> tuple[Tensor, list[int]]:
        """The input, padded where its ends differ, and the padding that is left to the function."""
        begins, ends = _pads(at, count)
        if begins == ends:
            return x, begins
        both = [size for pair in zip(reversed(begins), reversed(ends), strict=True) for size in pair]
        return self._functional.pad(x, both, value=value), [0] * count


def _pads(at: Attributes, count: int) -> tuple[list[int], list[int]]:
    if at.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise RuntimeFailed("PyTorch cannot run the file: auto_pad other than NOTSET or VALID")
    pads = list(at.get("pads", [0] * 2 * count))
    return pads[:count], pads[count:]


def _numbers(tensor: Tensor) -> list[int]:
    return [int(value) for value in tensor.reshape(-1).tolist()]


def _steps(outputs: Tensor, directions: int) -> Tensor:
    """Outputs (T, B, directions * H) in ONNX's order: (T, directions, B, H)."""
    steps, batch, _ = outputs.shape
    return outputs.reshape(steps, batch, directions, -1).transpose(1, 2)
