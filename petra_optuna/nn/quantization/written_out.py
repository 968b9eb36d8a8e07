"""Functions of torch that are several operators in a file, written out as those operators.

A function mode sees them as one call; what it shall round lies inside. The exporter decomposes them so.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def _body_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """A Python function of torch that runs, where the original hands itself to an active mode as one call."""
    if not isinstance(function, types.FunctionType):
        raise TypeError(f"{function!r} is no Python function")
    names = {**function.__globals__, "has_torch_function": lambda _: False}
    body = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__)
    body.__kwdefaults__ = function.__kwdefaults__
    return body


def _dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``scaled_dot_product_attention`` as the exporter writes it: both operands are scaled by a root."""
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    root = math.sqrt(query.shape[-1] ** -0.5 if scale is None else scale)
    scores = (query * root) @ (key.transpose(-2, -1) * root)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:  # a sum that the file leaves in float
        scores = scores.masked_fill(~attn_mask, torch.finfo(query.dtype).min)
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights = scores.softmax(-1)
    if dropout_p:
        weights = functional.dropout(weights, dropout_p)
    return weights @ value


def _add_product(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """``baddbmm``."""
    product = batch1 @ batch2
    return (product if alpha == 1 else product * alpha) + (input if beta == 1 else input * beta)


WRITTEN_OUT: Mapping[str, Callable[..., Any]] = {
    "baddbmm": _add_product,
    "multi_head_attention_forward": _body_of(functional.multi_head_attention_forward),
    "scaled_dot_product_attention": _dot_product_attention,
}
"""By the name of a function of torch, one with its arguments and results that calls other functions."""
