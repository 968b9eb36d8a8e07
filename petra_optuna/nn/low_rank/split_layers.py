"""Two layers that together have the geometry of one, and back.

Nothing is initialised: initialising would draw random numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from torch import Tensor, nn

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
Decomposable = nn.Linear | Convolution | Transposed | nn.Embedding
Split = Literal["channel", "spatial"]

ONE_POSITION: Mapping[type[nn.Module], type[Convolution]] = {
    nn.ConvTranspose1d: nn.Conv1d,
    nn.ConvTranspose2d: nn.Conv2d,
    nn.ConvTranspose3d: nn.Conv3d,
}
"""Class of the first half of a pair by that of its second half, where this is a transposed convolution."""


def split_axis(layer: Decomposable) -> int | None:
    """The kernel's dimension that the second half of a spatial pair takes: the last longer than one.

    None where the kernel has not two such dimensions, and of what is no convolution.
    """
    if not isinstance(layer, Convolution):
        return None
    long = [axis for axis, size in enumerate(layer.kernel_size) if size > 1]
    return long[-1] if len(long) > 1 else None


def split_geometry(layer: Decomposable, rank: int, split: Split) -> tuple[Decomposable, Decomposable]:
    """Layers n -> r without bias, and r -> m with the layer's bias.

    Args:
        layer: Layer n -> m; a convolution without groups.
        rank: Number of features r between the two.
        split: ``channel`` gives one layer the whole kernel and the other one position: the first has the
            kernel of a convolution, the second that of a transposed one, so that the other runs at fewer
            positions. ``spatial`` gives the second the kernel along ``split_axis``, the first the rest.
    """
    weight = layer.weight
    if isinstance(layer, nn.Embedding):
        first = nn.Embedding(layer.num_embeddings, rank, layer.padding_idx, device="meta", dtype=weight.dtype)
        second = nn.Linear(rank, layer.embedding_dim, bias=False, device="meta", dtype=weight.dtype)
        return first.to_empty(device=weight.device), second.to_empty(device=weight.device)
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return _linear(weight, layer.in_features, rank, False), _linear(
            weight, rank, layer.out_features, bias
        )
    if isinstance(layer, Transposed):
        pointwise = ONE_POSITION[type(layer)]
        first_half = pointwise(layer.in_channels, rank, 1, bias=False, dtype=weight.dtype, device="meta")
        return first_half.to_empty(device=weight.device), _transposed(layer, rank, bias=bias)
    axes = set(range(len(layer.kernel_size)))
    second_axes = {split_axis(layer)} & axes if split == "spatial" else set()
    return (
        _convolution(layer, layer.in_channels, rank, axes - second_axes, bias=False),
        _convolution(layer, rank, layer.out_channels, second_axes, bias=bias),
    )


def joined_geometry(first: Decomposable, second: Decomposable) -> Decomposable:
    """The layer of which ``split_geometry`` made these two."""
    weight, bias = first.weight, getattr(second, "bias", None) is not None
    if isinstance(first, nn.Embedding):
        features = second.weight.shape[0]
        layer = nn.Embedding(
            first.num_embeddings, features, first.padding_idx, device="meta", dtype=weight.dtype
        )
        return layer.to_empty(device=weight.device)
    if isinstance(first, nn.Linear):
        return _linear(weight, first.in_features, second.weight.shape[0], bias)
    if isinstance(second, Transposed):
        return _transposed(second, first.in_channels, bias=bias)
    assert isinstance(second, Convolution)
    padding = first.padding
    if not isinstance(padding, str):
        padding = tuple(a + b for a, b in zip(padding, second.padding, strict=True))  # type: ignore[operator]
    convolution = type(first)(
        first.in_channels,
        second.out_channels,
        _products(first.kernel_size, second.kernel_size),  # type: ignore[arg-type]
        stride=_products(first.stride, second.stride),  # type: ignore[arg-type]
        padding=padding,  # type: ignore[arg-type]
        dilation=_products(first.dilation, second.dilation),  # type: ignore[arg-type]
        padding_mode=first.padding_mode,
        bias=bias,
        dtype=weight.dtype,
        device="meta",
    )
    return convolution.to_empty(device=weight.device)


def _linear(like: Tensor, inputs: int, outputs: int, bias: bool) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=bias, dtype=like.dtype, device="meta").to_empty(device=like.device)


def _convolution(
    like: Convolution, inputs: int, outputs: int, axes: Collection[int | None], *, bias: bool
) -> Convolution:
    """A convolution like this along ``axes`` alone, of one position along the other dimensions."""

    def along(values: tuple[int, ...], other: int) -> tuple[int, ...]:
        return tuple(value if axis in axes else other for axis, value in enumerate(values))

    if isinstance(like.padding, str):
        padding: str | tuple[int, ...] = like.padding if axes else "valid"
    else:
        padding = along(like.padding, 0)
    layer = type(like)(
        inputs,
        outputs,
        along(like.kernel_size, 1),  # type: ignore[arg-type]
        stride=along(like.stride, 1),  # type: ignore[arg-type]
        padding=padding,  # type: ignore[arg-type]
        dilation=along(like.dilation, 1),  # type: ignore[arg-type]
        padding_mode=like.padding_mode,
        bias=bias,
        dtype=like.weight.dtype,
        device="meta",
    )
    return layer.to_empty(device=like.weight.device)


def _transposed(like: Transposed, inputs: int, *, bias: bool) -> Transposed:
    """A transposed convolution like this with another number of input channels."""
    layer = type(like)(
        inputs,
        like.out_channels,
        like.kernel_size,  # type: ignore[arg-type]
        stride=like.stride,  # type: ignore[arg-type]
        padding=like.padding,  # type: ignore[arg-type]
        output_padding=like.output_padding,  # type: ignore[arg-type]
        bias=bias,
        dilation=like.dilation,  # type: ignore[arg-type]
        padding_mode=like.padding_mode,
        dtype=like.weight.dtype,
        device="meta",
    )
    return layer.to_empty(device=like.weight.device)


def _products(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a * b for a, b in zip(first, second, strict=True))
