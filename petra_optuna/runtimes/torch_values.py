"""ONNX's operators that move, pick and reduce values, as functions of PyTorch (see ``torch_operators``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from petra_optuna.errors import RuntimeFailed

Attributes = Mapping[str, Any]
Tensor = Any
"""``torch.Tensor``, or None for an input that is left out."""


class ValueOperators:
    """Functions by the names ``_op_OPERATOR``: from attributes and inputs to the output or outputs.

    Args:
        torch: The module ``torch``.
        place: Moves a tensor to where the session computes with it.
    """

    def __init__(self, torch: Any, place: Callable[[Tensor], Tensor]) -> None:
        self._torch = torch
        self._functional = torch.nn.functional
        self._place = place

    def _op_argmax(self, at: Attributes, x: Tensor) -> Tensor:
        return self._extreme(self._torch.argmax, at, x)

    def _op_argmin(self, at: Attributes, x: Tensor) -> Tensor:
        return self._extreme(self._torch.argmin, at, x)

    def _extreme(self, function: Callable[..., Tensor], at: Attributes, x: Tensor) -> Tensor:
        refuse(at, select_last_index=0)
        return function(x, at.get("axis", 0), keepdim=bool(at.get("keepdims", 1)))

    def _op_topk(self, at: Attributes, x: Tensor, k: Tensor) -> Tensor:
        largest, ordered = bool(at.get("largest", 1)), bool(at.get("sorted", 1))
        values, indices = self._torch.topk(x, numbers(k)[0], at.get("axis", -1), largest, ordered)
        return values, indices

    def _op_cumsum(self, at: Attributes, x: Tensor, axis: Tensor) -> Tensor:
        (along,) = numbers(axis)
        if at.get("reverse"):
            x = x.flip(along)
        sums = x.cumsum(along) - x if at.get("exclusive") else x.cumsum(along)
        return sums.flip(along) if at.get("reverse") else sums

    def _op_einsum(self, at: Attributes, *terms: Tensor) -> Tensor:
        return self._torch.einsum(at["equation"], *terms)

    def _op_max(self, at: Attributes, first: Tensor, *rest: Tensor) -> Tensor:
        for other in rest:
            first = self._torch.maximum(first, other)
        return first

    def _op_min(self, at: Attributes, first: Tensor, *rest: Tensor) -> Tensor:
        for other in rest:
            first = self._torch.minimum(first, other)
        return first

    def _op_mod(self, at: Attributes, x: Tensor, y: Tensor) -> Tensor:
        return (self._torch.fmod if at.get("fmod") else self._torch.remainder)(x, y)

    def _op_reducemean(self, at: Attributes, x: Tensor, axes: Tensor = None) -> Tensor:
        return self._reduced(self._torch.mean, at, x, axes)

    def _op_reducemax(self, at: Attributes, x: Tensor, axes: Tensor = None) -> Tensor:
        return self._reduced(self._torch.amax, at, x, axes)

    def _op_reducemin(self, at: Attributes, x: Tensor, axes: Tensor = None) -> Tensor:
        return self._reduced(self._torch.amin, at, x, axes)

    def _op_reducesum(self, at: Attributes, x: Tensor, axes: Tensor = None) -> Tensor:
        return self._reduced(self._torch.sum, at, x, axes)

    def _op_reducesumsquare(self, at: Attributes, x: Tensor, axes: Tensor = None) -> Tensor:
        return self._reduced(self._torch.sum, at, x.square(), axes)

    def _op_reducel1(self, at: Attributes, x: Tensor, axes: Tensor = None) -> Tensor:
        return self._reduced(self._torch.sum, at, x.abs(), axes)

    def _op_reducel2(self, at: Attributes, x: Tensor, axes: Tensor = None) -> Tensor:
        return self._reduced(self._torch.sum, at, x.square(), axes).sqrt()

    def _op_reducelogsumexp(self, at: Attributes, x: Tensor, axes: Tensor = None) -> Tensor:
        return self._reduced(self._torch.logsumexp, at, x, axes)

    def _op_reduceprod(self, at: Attributes, x: Tensor, axes: Tensor = None) -> Tensor:
        def product(values: Tensor, chosen: list[int], keepdim: bool) -> Tensor:
            for axis in sorted((axis % values.dim() for axis in chosen), reverse=True):
                values = values.prod(axis, keepdim=keepdim)
            return values

        return self._reduced(product, at, x, axes)

    def _reduced(self, function: Callable[..., Tensor], at: Attributes, x: Tensor, axes: Tensor) -> Tensor:
        chosen = numbers(axes) if axes is not None else list(at.get("axes", ()))
        if not chosen and at.get("noop_with_empty_axes"):
            return x
        return function(x, chosen or list(range(x.dim())), keepdim=bool(at.get("keepdims", 1)))

    def _op_pad(
        self, at: Attributes, x: Tensor, pads: Tensor, value: Tensor = None, axes: Tensor = None
    ) -> Tensor:
        sizes = numbers(pads)
        padded = numbers(axes) if axes is not None else range(x.dim())
        ends = dict(
            zip(padded, zip(sizes[: len(sizes) // 2], sizes[len(sizes) // 2 :], strict=True), strict=True)
        )
        mode = at.get("mode", "constant")
        if mode != "constant":
            for axis, (before, after) in ends.items():
                x = x.index_select(axis, self._places(mode, x.shape[axis], before, after, x.device))
            return x
        both = [
            size
            for axis in reversed(range(x.dim()))
            for size in ends.get(axis, ends.get(axis - x.dim(), (0, 0)))
        ]
        return self._functional.pad(x, both, value=0.0 if value is None else value.item())

    def _places(self, mode: str, size: int, before: int, after: int, device: Any) -> Tensor:
        """For each place of a padded axis the place that its value comes from."""
        places = self._torch.arange(-before, size + after, device=device)
        if mode == "edge":
            return places.clamp(0, size - 1)
        if mode == "wrap":
            return places % size
        period = max(2 * (size - 1), 1)
        places = places % period
        return self._torch.minimum(places, period - places) if size > 1 else places * 0

    def _op_tile(self, at: Attributes, x: Tensor, repeats: Tensor) -> Tensor:
        return self._torch.tile(x, numbers(repeats))

    def _op_depthtospace(self, at: Attributes, x: Tensor) -> Tensor:
        size = at["blocksize"]
        batch, channels, height, width = x.shape
        left = channels // size**2
        if at.get("mode", "DCR") == "DCR":
            x = x.reshape(batch, size, size, left, height, width).permute(0, 3, 4, 1, 5, 2)
        else:
            x = x.reshape(batch, left, size, size, height, width).permute(0, 1, 4, 2, 5, 3)
        return x.reshape(batch, left, height * size, width * size)

    def _op_spacetodepth(self, at: Attributes, x: Tensor) -> Tensor:
        size = at["blocksize"]
        batch, channels, height, width = x.shape
        x = x.reshape(batch, channels, height // size, size, width // size, size).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(batch, channels * size**2, height // size, width // size)

    def _op_range(self, at: Attributes, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
        return self._place(self._torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype))

    def _op_trilu(self, at: Attributes, x: Tensor, k: Tensor = None) -> Tensor:
        diagonal = 0 if k is None else numbers(k)[0]
        return (self._torch.triu if at.get("upper", 1) else self._torch.tril)(x, diagonal)

    def _op_gatherelements(self, at: Attributes, x: Tensor, indices: Tensor) -> Tensor:
        axis, rows = at.get("axis", 0), indices.to(x.device).long()
        return x.gather(axis, self._torch.where(rows < 0, rows + x.shape[axis], rows))

    def _op_scatternd(self, at: Attributes, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        refuse(at, reduction="none")
        depth = indices.shape[-1]
        places = tuple(indices.to(x.device).long().reshape(-1, depth).unbind(-1))
        return x.clone().index_put_(places, updates.reshape(-1, *x.shape[depth:]))


def refuse(at: Attributes, **known: Any) -> None:
    """Refuse attributes of other values than these, which are also the defaults.

    Raises:
        RuntimeFailed: When one has another value.
    """
    for name, value in known.items():
        if at.get(name, value) != value:
            raise RuntimeFailed(
                f"PyTorch cannot run the file: {name} {at[name]!r} is not among what it knows"
            )


def numbers(tensor: Tensor) -> list[int]:
    """The tensor's values as Python's integers."""
    return [int(value) for value in tensor.reshape(-1).tolist()]
