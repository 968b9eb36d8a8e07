"""Attention modules written out as layers that are called."""

from petra_optuna.nn.attention.kernels import layers_called, products_called
from petra_optuna.nn.attention.layered import PARTS, LayeredAttention
from petra_optuna.nn.attention.opening import close_unchanged, left_closed, open_attention
from petra_optuna.nn.attention.window import LayeredWindowAttention

__all__ = [
    "PARTS",
    "LayeredAttention",
    "LayeredWindowAttention",
    "close_unchanged",
    "layers_called",
    "left_closed",
    "open_attention",
    "products_called",
]
