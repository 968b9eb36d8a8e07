"""Two layers that together have the geometry of one, and back.

Nothing is initialised: initialising would draw random numbers.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from torch import Tensor, nn

Decomposable = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Embedding
Split = Literal["channel", "spatial"]


def split_geometry(layer: Decomposable, rank: int, split: Split) -> tuple[Decomposable, Decomposable]:
    """Layers n -> r without bias, and r -> m with the layer's bias.

    Args:
        layer: Layer n -> m; a convolution without groups.
        rank: Number of features r between the two.
        split: ``channel`` gives the first layer the whole kernel and the second one position;
            ``spatial`` the first layer the kernel's rows and the second its columns (Conv2d only).
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
    all_axes = range(len(layer.kernel_size))
    first_axes, second_axes = ((0,), (1,)) if split == "spatial" else (all_axes, ())
    return (
        _convolution(layer, layer.in_channels, rank, first_axes, bias=False),
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
    assert isinstance(second, nn.Conv1d | nn.Conv2d)
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
    like: nn.Conv1d | nn.Conv2d, inputs: int, outputs: int, axes: Collection[int], *, bias: bool
) -> nn.Conv1d | nn.Conv2d:
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


def _products(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a * b for a, b in zip(first, second, strict=True))
