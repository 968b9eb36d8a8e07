"""torch's and torchvision's attention modules replaced by layered ones that compute the same, and back.

The layered module holds the same parameter objects wherever it can, so scores by parameter stay valid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from petra_optuna.nn.attention.layered import PARTS, LayeredAttention
from petra_optuna.nn.attention.window import LayeredWindowAttention
from petra_optuna.nn.surgery import has_computed_weights, has_hooks, replace_module, shared_layers

_WINDOWS = "torchvision.models.swin_transformer"
"""Module of torchvision's window attention, which is known by name: nothing here imports torchvision."""


def open_attention(model: nn.Module) -> tuple[nn.Module, dict[str, nn.Module]]:
    """Replace attention modules by layered ones, in place; those that ``left_closed`` names stay.

    Args:
        model: Model that is changed in place.

    Returns:
        The model, and the modules that were replaced, by name.
    """
    opened = {
        name: module
        for name, module in list(model.named_modules())
        if _is_attention(module) and _reason_against(model, name, module) is None
    }
    for name, module in opened.items():
        model = replace_module(model, name, _layered(module))
    return model, opened


def close_unchanged(model: nn.Module, opened: Mapping[str, nn.Module]) -> nn.Module:
    """Put back attention modules whose layered form has the layers and shapes that it had, in place.

    They take over its values.

    Args:
        model: Model that ``open_attention`` returned, or a copy of it.
        opened: Modules that it replaced, or copies of them; they are changed.
    """
    for name, module in opened.items():
        layered = model.get_submodule(name)
        before, after = dict(_layered(module).named_parameters()), dict(layered.named_parameters())
        if _shapes(before) != _shapes(after) or _has_key_bias(layered):
            continue
        for parameter, kept in zip(before.values(), after.values(), strict=True):
            parameter.data = kept.data
            parameter.requires_grad_(kept.requires_grad)
        model = replace_module(model, name, module.train(layered.training))
    return model


def left_closed(model: nn.Module) -> dict[str, str]:
    """The attention modules that cannot be opened, by name, with the reason."""
    return {
        name: reason
        for name, module in model.named_modules()
        if _is_attention(module) and (reason := _reason_against(model, name, module)) is not None
    }


def _reason_against(model: nn.Module, name: str, module: nn.Module) -> str | None:
    if not name:
        return "its attention is the whole model"
    if isinstance(module, nn.MultiheadAttention):
        if type(module) is not nn.MultiheadAttention:
            return f"{type(module).__name__} may compute something else than nn.MultiheadAttention"
        if module.bias_k is not None or module.add_zero_attn:
            return "its attention adds keys of its own (add_bias_kv, add_zero_attn)"
    parts = dict(module.named_modules(prefix=name))
    if any(has_hooks(part) for part in parts.values()):
        return "its attention has hooks"
    if any(has_computed_weights(part) for part in parts.values()):
        return "a weight of its attention is computed from others"
    if shared_layers(model) & parts.keys():
        return "its attention shares a weight with another layer"
    return None


def _layered(module: nn.Module) -> nn.Module:
    layered = _of_multihead(module) if isinstance(module, nn.MultiheadAttention) else _of_window(module)
    return layered.train(module.training)


def _shapes(parameters: Mapping[str, nn.Parameter]) -> list[tuple[str, torch.Size]]:
    return [(name, parameter.shape) for name, parameter in parameters.items()]


def _has_key_bias(layered: nn.Module) -> bool:
    """Whether this is cosine attention with a bias of keys, which torchvision reads as zero."""
    if not isinstance(layered, LayeredWindowAttention) or layered.position_features is None:
        return False
    bias = dict(layered.named_parameters()).get("qkv.bias")
    return bias is not None and bool(bias.chunk(PARTS)[1].any())


def _is_attention(module: nn.Module) -> bool:
    window = type(module).__module__ == _WINDOWS and hasattr(module, "relative_position_index")
    return isinstance(module, nn.MultiheadAttention) or window


def _of_multihead(module: nn.MultiheadAttention) -> LayeredAttention:
    same = module.in_proj_weight is not None
    layered = LayeredAttention(
        module.embed_dim,
        module.embed_dim,
        module.num_heads,
        module.head_dim,
        None if same else module.kdim,
        None if same else module.vdim,
        module.in_proj_bias is not None,
        module.dropout,
        module.batch_first,
        device="meta",
    )
    if same:
        _hold(layered.in_proj, weight=module.in_proj_weight, bias=module.in_proj_bias)
    else:
        for part in ("q", "k", "v"):
            _hold(getattr(layered, f"{part}_proj"), weight=getattr(module, f"{part}_proj_weight"))
        _hold(layered, in_proj_bias=module.in_proj_bias)
    _hold(layered.out_proj, weight=module.out_proj.weight, bias=module.out_proj.bias)
    return layered


def _of_window(module: Any) -> LayeredWindowAttention:
    width, cosine = module.qkv.in_features, hasattr(module, "cpb_mlp")
    layered = LayeredWindowAttention(
        width,
        width,
        module.num_heads,
        width // module.num_heads,
        module.window_size,
        module.shift_size,
        module.qkv.bias is not None,
        module.proj.bias is not None,
        module.attention_dropout,
        module.dropout,
        module.cpb_mlp[0].out_features if cosine else None,
        device="meta",
    )
    for name, parameter in module.named_parameters():
        owner, _, attribute = name.rpartition(".")
        _hold(layered.get_submodule(owner), **{attribute: parameter})
    _hold(layered, **dict(module.named_buffers(recurse=False)))
    if cosine and module.qkv.bias is not None:
        with torch.no_grad():  # torchvision reads it as zero in each call
            module.qkv.bias.chunk(PARTS)[1].zero_()
    return layered


def _hold(layer: nn.Module, **tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        setattr(layer, name, tensor)
