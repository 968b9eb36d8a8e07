"""``nn.MultiheadAttention`` with layers for its projections, which can be factored and lose heads.

torch's module holds the projections of queries, keys and values as bare parameters, reads those of its output
layer without calling it, and has as many features inside as outside.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

PARTS = 3
"""Queries, keys and values: the equal parts of a fused projection."""


class LayeredAttention(nn.Module):
    """Multi-head attention that is called as ``nn.MultiheadAttention`` is, and computes the same.

    Queries, keys and values come from one layer ``in_proj``, or from ``q_proj``, ``k_proj`` and ``v_proj``
    where keys or values have another number of features. Each layer may be replaced by a pair of layers.

    Args:
        embed_dim: Number of features of the queries that are read.
        output_dim: Number of features of outputs.
        num_heads: Number of heads.
        head_dim: Number of features of each head.
        kdim: Number of features of the keys that are read; None for one fused projection.
        vdim: Number of features of the values that are read; None for one fused projection.
        bias: Whether projections add biases.
        dropout: Share of the attention weights that training sets to zero.
        batch_first: Whether inputs are (B, T, features) or (T, B, features).
        device: Device of new parameters.
        dtype: Type of new parameters.
    """

    def __init__(
        self,
        embed_dim: int,
        output_dim: int,
        num_heads: int,
        head_dim: int,
        kdim: int | None = None,
        vdim: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.embed_dim, self.output_dim = embed_dim, output_dim
        self.num_heads, self.head_dim = num_heads, head_dim
        self.kdim, self.vdim, self.dropout, self.batch_first = kdim, vdim, dropout, batch_first
        self.bias = bias
        width = num_heads * head_dim
        if kdim is None or vdim is None:
            self.in_proj: nn.Module = nn.Linear(embed_dim, PARTS * width, bias, device, dtype)
            self.in_proj_bias: nn.Parameter | None = None
        else:
            self.q_proj: nn.Module = nn.Linear(embed_dim, width, False, device, dtype)
            self.k_proj: nn.Module = nn.Linear(kdim, width, False, device, dtype)
            self.v_proj: nn.Module = nn.Linear(vdim, width, False, device, dtype)
            bias_of_all = torch.empty(PARTS * width, device=device, dtype=dtype)
            self.in_proj_bias = nn.Parameter(bias_of_all) if bias else None
        self.out_proj: nn.Module = nn.Linear(width, output_dim, bias, device, dtype)

    @property
    def _qkv_same_embed_dim(self) -> bool:
        """What encoder layers ask before they pass layers by; this module's layers must be called."""
        return False

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Outputs and attention weights, as ``nn.MultiheadAttention`` returns them."""
        batched = query.dim() == 3
        projected = self._project(query, key, value)
        q, k, v = (self._split(part, batched) for part in projected)
        causal = is_causal and key_padding_mask is None and not need_weights
        mask = None if causal else _joined_mask(attn_mask, key_padding_mask, q)
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            scores = (q * self.head_dim**-0.5) @ k.transpose(-2, -1)
            weights = (scores if mask is None else scores + mask).softmax(-1)
            if dropout:
                weights = functional.dropout(weights, dropout)
            mixed = weights @ v
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, mask, dropout, causal)
        output: Tensor = self.out_proj(self._merge(mixed, batched))
        if weights is None:
            return output, None
        weights = weights.mean(1) if average_attn_weights else weights
        return output, weights if batched else weights[0]

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        if hasattr(self, "in_proj"):
            if query is key and key is value:
                return self.in_proj(query).chunk(PARTS, -1)  # type: ignore[no-any-return]
            inputs = (query, key, value)
            return tuple(_part(self.in_proj, tensor, index) for index, tensor in enumerate(inputs))
        parts = (self.q_proj(query), self.k_proj(key), self.v_proj(value))
        if self.in_proj_bias is None:
            return parts
        biases = self.in_proj_bias.chunk(PARTS)
        return tuple(part + bias for part, bias in zip(parts, biases, strict=True))

    def _split(self, features: Tensor, batched: bool) -> Tensor:
        """Features as (B, heads, T, head_dim)."""
        split = features.reshape(*features.shape[:-1], -1, self.head_dim)
        if not batched:
            return split.transpose(0, 1).unsqueeze(0)
        return split.transpose(1, 2) if self.batch_first else split.permute(1, 2, 0, 3)

    def _merge(self, mixed: Tensor, batched: bool) -> Tensor:
        """The inverse of ``_split``."""
        if not batched:
            return mixed[0].transpose(0, 1).flatten(-2)
        ordered = mixed.transpose(1, 2) if self.batch_first else mixed.permute(2, 0, 1, 3)
        return ordered.flatten(-2)


def _part(projection: nn.Module, inputs: Tensor, index: int) -> Tensor:
    """One third of a fused projection; a pair's first layer is common to all of them."""
    if not isinstance(projection, nn.Linear):
        first, projection = projection.children()
        inputs = first(inputs)
    assert isinstance(projection, nn.Linear)
    weight = projection.weight.chunk(PARTS)[index]
    bias = None if projection.bias is None else projection.bias.chunk(PARTS)[index]
    return functional.linear(inputs, weight, bias)


def _joined_mask(attn_mask: Tensor | None, key_padding_mask: Tensor | None, like: Tensor) -> Tensor | None:
    """Both masks as one that is added to scores (B, heads, T, S)."""
    mask = None
    if attn_mask is not None:
        mask = _additive(attn_mask, like)
        if mask.dim() == 3:
            mask = mask.reshape(-1, like.shape[1], *mask.shape[1:])
    if key_padding_mask is not None:
        padding = _additive(key_padding_mask, like)
        padding = padding[:, None, None] if padding.dim() == 2 else padding
        mask = padding if mask is None else mask + padding
    return mask


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype is not torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))
