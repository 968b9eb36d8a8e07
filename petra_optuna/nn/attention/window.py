"""torchvision's shifted-window attention (Swin, arXiv 2103.14030; V2, arXiv 2111.09883) with called layers.

torchvision's module reads the weights of its layers without calling them, and its heads have all features
together. Here both are free, so that layers can be factored and heads can leave.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from petra_optuna.nn.attention.layered import PARTS

REGIONS = 3
"""Parts of each axis that a shift makes neighbours or not."""
OUTSIDE = -100.0
"""What torchvision adds to scores of positions that the shift has brought into one window."""
HIGHEST_SCALE = math.log(100.0)
"""Largest logarithm of the factor of cosine attention."""


class LayeredWindowAttention(nn.Module):
    """Attention within windows of (B, H, W, C), every other time of shifted windows.

    Args:
        embed_dim: Number of features C that are read.
        output_dim: Number of features of outputs.
        num_heads: Number of heads.
        head_dim: Number of features of each head.
        window_size: Height and width of a window.
        shift_size: Shift of the windows along height and width.
        qkv_bias: Whether queries, keys and values have biases.
        proj_bias: Whether the output has one.
        attention_dropout: Share of the attention weights that training sets to zero.
        dropout: Share of the outputs that training sets to zero.
        position_features: Width of the network that computes position biases and makes this the attention of
            V2, by cosines; None for a table of biases.
        device: Device of new tensors.
        dtype: Type of new parameters.
    """

    relative_position_index: Tensor
    relative_coords_table: Tensor

    def __init__(
        self,
        embed_dim: int,
        output_dim: int,
        num_heads: int,
        head_dim: int,
        window_size: Sequence[int],
        shift_size: Sequence[int],
        qkv_bias: bool = True,
        proj_bias: bool = True,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
        position_features: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.embed_dim, self.output_dim = embed_dim, output_dim
        self.num_heads, self.head_dim = num_heads, head_dim
        self.window_size, self.shift_size = list(window_size), list(shift_size)
        self.qkv_bias, self.proj_bias = qkv_bias, proj_bias
        self.attention_dropout, self.dropout = attention_dropout, dropout
        self.position_features = position_features
        width, positions = num_heads * head_dim, math.prod(2 * size - 1 for size in window_size)
        self.qkv: nn.Module = nn.Linear(embed_dim, PARTS * width, qkv_bias, device, dtype)
        self.proj: nn.Module = nn.Linear(width, output_dim, proj_bias, device, dtype)
        index = torch.empty(math.prod(window_size) ** 2, dtype=torch.int64, device=device)
        self.register_buffer("relative_position_index", index)
        if position_features is None:
            table = torch.empty(positions, num_heads, device=device, dtype=dtype)
            self.relative_position_bias_table = nn.Parameter(table)
            return
        sides = (2 * size - 1 for size in window_size)
        self.register_buffer("relative_coords_table", torch.empty(1, *sides, 2, device=device, dtype=dtype))
        self.logit_scale = nn.Parameter(torch.empty(num_heads, 1, 1, device=device, dtype=dtype))
        self.cpb_mlp = nn.Sequential(
            nn.Linear(2, position_features, True, device, dtype),
            nn.ReLU(inplace=True),
            nn.Linear(position_features, num_heads, False, device, dtype),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, output_dim)."""
        batch, height, width, _ = x.shape
        rows, columns = self.window_size
        padded = functional.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
        size = (padded.shape[1], padded.shape[2])
        # A window that holds everything is not shifted.
        shift = tuple(
            0 if window >= side else step
            for window, side, step in zip(self.window_size, size, self.shift_size, strict=True)
        )
        if any(shift):
            padded = padded.roll((-shift[0], -shift[1]), (1, 2))
        grid = (size[0] // rows, size[1] // columns)
        windows = padded.reshape(batch, grid[0], rows, grid[1], columns, -1).permute(0, 1, 3, 2, 4, 5)
        windows = windows.reshape(-1, rows * columns, windows.shape[-1])
        mixed = self._attend(windows, self._mask(size, shift, padded) if any(shift) else None)
        mixed = mixed.reshape(batch, *grid, rows, columns, -1).permute(0, 1, 3, 2, 4, 5)
        mixed = mixed.reshape(batch, *size, mixed.shape[-1])
        if any(shift):
            mixed = mixed.roll(shift, (1, 2))
        return mixed[:, :height, :width].contiguous()

    def _attend(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """Attention within each window (N, T, C); the mask is that of each window of an image."""
        split = self.qkv(windows).reshape(*windows.shape[:-1], PARTS, -1, self.head_dim)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        if self.position_features is None:
            scores = (q * self.head_dim**-0.5) @ k.transpose(-2, -1)
        else:
            cosines = functional.normalize(q, dim=-1) @ functional.normalize(k, dim=-1).transpose(-2, -1)
            scores = cosines * self.logit_scale.clamp(max=HIGHEST_SCALE).exp()
        scores = scores + self._position_bias()
        if mask is not None:
            by_image = scores.reshape(-1, len(mask), *scores.shape[1:]) + mask[:, None]
            scores = by_image.flatten(0, 1)
        weights = functional.dropout(scores.softmax(-1), self.attention_dropout, self.training)
        mixed = (weights @ v).transpose(1, 2).flatten(-2)
        return functional.dropout(self.proj(mixed), self.dropout, self.training)

    def _position_bias(self) -> Tensor:
        """What each head adds to the scores (heads, T, T)."""
        positions = math.prod(self.window_size)
        if self.position_features is None:
            table: Tensor = self.relative_position_bias_table
        else:
            table = self.cpb_mlp(self.relative_coords_table).flatten(0, 2)
        biases = table[self.relative_position_index].reshape(positions, positions, -1).permute(2, 0, 1)
        return biases if self.position_features is None else 16 * biases.sigmoid()

    def _mask(self, size: tuple[int, int], shift: tuple[int, ...], like: Tensor) -> Tensor:
        """``OUTSIDE`` where two positions of a window (windows, T, T) are no neighbours."""
        regions = like.new_zeros(size)
        for axis, (window, step) in enumerate(zip(self.window_size, shift, strict=True)):
            places = torch.arange(size[axis], device=like.device)
            region = (places >= size[axis] - window).to(like) + (places >= size[axis] - step).to(like)
            regions = regions + region.unsqueeze(1 - axis) * REGIONS**axis
        rows, columns = self.window_size
        grid = regions.reshape(size[0] // rows, rows, size[1] // columns, columns).permute(0, 2, 1, 3)
        numbers = grid.reshape(-1, rows * columns)
        apart = numbers.unsqueeze(1) != numbers.unsqueeze(2)
        return torch.zeros_like(apart, dtype=like.dtype).masked_fill(apart, OUTSIDE)
