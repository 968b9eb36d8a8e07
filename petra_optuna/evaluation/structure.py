"""The structure of a model as JSON-ready data, relative to the base model that it came from.

Leaf modules of known classes are described by their constructor's arguments and can be built anew.
Everything else must be as the base has it, except the shapes of its tensors and a few attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.attention import LayeredAttention, LayeredWindowAttention
from petra_optuna.nn.low_rank import FactoredRecurrent, LowRankPair
from petra_optuna.nn.pruning import HEAD_NUMBERS, PassThrough

_CONV = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
    "bias",
)
_TRANSPOSED = (*_CONV[:5], "output_padding", *_CONV[5:])
_BATCH_NORM = ("num_features", "eps", "momentum", "affine", "track_running_stats")
_LINEAR = ("in_features", "out_features", "bias")
_EMBEDDING = (
    "num_embeddings",
    "embedding_dim",
    "padding_idx",
    "max_norm",
    "norm_type",
    "scale_grad_by_freq",
    "sparse",
)
_RECURRENT = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")

LEAVES: Mapping[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: _LINEAR,
    NonDynamicallyQuantizableLinear: _LINEAR,
    nn.Conv1d: _CONV,
    nn.Conv2d: _CONV,
    nn.Conv3d: _CONV,
    nn.ConvTranspose1d: _TRANSPOSED,
    nn.ConvTranspose2d: _TRANSPOSED,
    nn.ConvTranspose3d: _TRANSPOSED,
    nn.BatchNorm1d: _BATCH_NORM,
    nn.BatchNorm2d: _BATCH_NORM,
    nn.BatchNorm3d: _BATCH_NORM,
    nn.InstanceNorm1d: _BATCH_NORM,
    nn.InstanceNorm2d: _BATCH_NORM,
    nn.LayerNorm: ("normalized_shape", "eps", "elementwise_affine", "bias"),
    nn.GroupNorm: ("num_groups", "num_channels", "eps", "affine"),
    nn.Embedding: _EMBEDDING,
    nn.PReLU: ("num_parameters",),
    nn.GRU: _RECURRENT,
    nn.LSTM: (*_RECURRENT, "proj_size"),
    FactoredRecurrent: ("kind", *_RECURRENT, "ranks"),
    LayeredAttention: (
        *("embed_dim", "output_dim", "num_heads", "head_dim", "kdim", "vdim"),
        *("bias", "dropout", "batch_first"),
    ),
    LayeredWindowAttention: (
        *("embed_dim", "output_dim", "num_heads", "head_dim", "window_size", "shift_size"),
        *("qkv_bias", "proj_bias", "attention_dropout", "dropout", "position_features"),
    ),
    nn.Identity: (),
    PassThrough: (),
}
"""Classes that can be built anew, with the attributes that are their constructor's arguments."""

SCALARS = HEAD_NUMBERS | {"training", "embed_dim", "kdim", "vdim", "head_dim", "normalized_shape"}
"""Attributes of other modules that operations may change."""

SIZES: Mapping[type[nn.Module], frozenset[str]] = {
    nn.Linear: frozenset({"in_features", "out_features"}),
    nn.modules.conv._ConvNd: frozenset({"in_channels", "out_channels", "groups"}),
    nn.modules.batchnorm._NormBase: frozenset({"num_features"}),
    nn.LayerNorm: frozenset({"normalized_shape"}),
    nn.RMSNorm: frozenset({"normalized_shape"}),
    nn.GroupNorm: frozenset({"num_groups", "num_channels"}),
    nn.Embedding: frozenset({"num_embeddings", "embedding_dim"}),
    nn.PReLU: frozenset({"num_parameters"}),
    nn.RNNBase: frozenset({"input_size", "hidden_size"}),
}
"""Attributes that operations may change in a class of the base's own that descends from one of these."""

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
}
_BY_NAME = {leaf_class.__name__: leaf_class for leaf_class in LEAVES}
_PAIR = "LowRankPair"


def describe_modules(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Class and arguments, layers of a pair, or plain attributes of every module, by its first name."""
    described: dict[str, dict[str, Any]] = {}
    inside_pairs: set[nn.Module] = set()
    for name, module in model.named_modules():
        if isinstance(module, LowRankPair):
            inside_pairs |= set(module.children())
        if module not in inside_pairs:
            described[name] = _describe(module)
    return described


def changed_modules(model: nn.Module, base: nn.Module) -> dict[str, dict[str, Any]]:
    """Describe the modules that are not as ``base`` has them, without parts of such modules.

    Raises:
        OperationFailed: When one of them can neither be built anew nor brought there by attributes.
    """
    before, after = describe_modules(base), describe_modules(model)
    changed: dict[str, dict[str, Any]] = {}
    for name, entry in after.items():
        if entry == before.get(name):
            continue
        if not _can_be_built(entry):
            allowed = _changeable(_submodule(model, name))
            entry = _difference(name, before.get(name), entry, allowed)
        changed[name] = entry
    missing = [name for name in before if name not in after and not _is_below(name, changed)]
    if missing:
        raise OperationFailed(f"module {missing[0]!r} of the original is gone; a checkpoint cannot say so")
    return changed


def apply_changes(model: nn.Module, changed: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Build the changed modules into ``model``, in place; their tensors are not yet filled.

    Returns:
        The model, or what replaces it where the whole of it is one changed layer.

    Raises:
        ValueError: When a description names an unknown class, attribute or place.
    """
    for name, entry in changed.items():
        if not _can_be_built(entry):
            _set_attributes(model, name, entry)
            continue
        module = _build(entry)
        if not name:
            return module
        for alias in _aliases(model, name):
            parent, _, child = alias.rpartition(".")
            setattr(_submodule(model, parent), child, module)
    return model


def tensor_names(model: nn.Module, *, recurse: bool = True) -> list[str]:
    """Names of parameters and buffers in order, those that share a tensor included."""
    names = [name for name, _ in model.named_parameters(recurse=recurse, remove_duplicate=False)]
    return names + [name for name, _ in model.named_buffers(recurse=recurse, remove_duplicate=False)]


def get_tensor(model: nn.Module, name: str) -> Tensor:
    """The parameter or buffer of that name."""
    owner, _, attribute = name.rpartition(".")
    tensor: Tensor = getattr(_submodule(model, owner), attribute)
    return tensor


def set_tensor(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Replace the parameter or buffer that has this name.

    Raises:
        ValueError: When the model has none of this name.
    """
    owner, _, attribute = name.rpartition(".")
    module = _submodule(model, owner)
    if not isinstance(getattr(module, attribute, None), Tensor):
        raise ValueError(f"the model has no tensor {name!r}")
    setattr(module, attribute, tensor)


def _describe(module: nn.Module) -> dict[str, Any]:
    module_class = type(module)
    entry: dict[str, Any] = {"class": module_class.__name__}
    if isinstance(module, LowRankPair):
        entry["layers"] = [_describe(module.first), _describe(module.second)]
    elif module_class in LEAVES:
        entry["args"] = {name: _argument(module, name) for name in LEAVES[module_class]}
        entry["dtype"] = _dtype(module)
    else:
        entry["class"] = f"{module_class.__module__}.{module_class.__qualname__}"
        entry["tensors"] = tensor_names(module, recurse=False)
        entry["attributes"] = {name: value for name, value in vars(module).items() if _is_plain(name, value)}
    return {**entry, "training": module.training}


def _argument(module: nn.Module, name: str) -> Any:
    value = getattr(module, name)
    if isinstance(value, Tensor) or (name == "bias" and value is None):
        return value is not None
    return list(value) if isinstance(value, tuple) else value


def _dtype(module: nn.Module) -> str | None:
    weight = next(module.parameters(recurse=False), None)
    return str(weight.dtype).removeprefix("torch.") if weight is not None else None


def _is_plain(name: str, value: object) -> bool:
    if name.startswith("_") or name == "training":
        return False
    items = value if isinstance(value, tuple | list) else (value,)
    return all(item is None or isinstance(item, bool | int | float | str) for item in items)


def _can_be_built(entry: Mapping[str, Any]) -> bool:
    return entry["class"] in _BY_NAME or entry["class"] == _PAIR


def _changeable(module: nn.Module) -> frozenset[str]:
    """Attributes that operations may change in a module that cannot be built anew."""
    sizes = (names for ancestor, names in SIZES.items() if isinstance(module, ancestor))
    return SCALARS.union(*sizes)


def _difference(
    name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any], allowed: frozenset[str]
) -> dict[str, Any]:
    """The attributes that changed, where all of them are allowed."""
    if before is None or before["class"] != after["class"]:
        raise OperationFailed(f"module {name!r} ({after['class']}) is new and not of a class that is known")
    if before["tensors"] != after["tensors"]:
        raise OperationFailed(f"module {name!r} ({after['class']}) has other tensors than in the original")
    old = {**before["attributes"], "training": before["training"]}
    new = {**after["attributes"], "training": after["training"]}
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    unknown = [key for key in changed if key not in allowed]
    if unknown:
        raise OperationFailed(
            f"module {name!r} ({after['class']}) changed its {unknown[0]!r}, which cannot be restored"
        )
    values = {key: list(new[key]) if isinstance(new[key], tuple) else new[key] for key in changed}
    return {"class": after["class"], "set": values}


def _set_attributes(model: nn.Module, name: str, entry: Mapping[str, Any]) -> None:
    module = _submodule(model, name)
    for key, value in entry["set"].items():
        if key not in _changeable(module):
            raise ValueError(f"attribute {key!r} of module {name!r} may not be set from a checkpoint")
        setattr(module, key, tuple(value) if isinstance(value, list) else value)


def _build(entry: Mapping[str, Any]) -> nn.Module:
    module: nn.Module
    if entry["class"] == _PAIR:
        first, second = (_build(layer) for layer in entry["layers"])
        module = LowRankPair(first, second)  # type: ignore[arg-type]  # refuses what is no pair
    else:
        leaf_class = _BY_NAME[entry["class"]]
        if entry["args"].keys() != set(LEAVES[leaf_class]):
            raise ValueError(f"{entry['class']} does not take {', '.join(entry['args'])}")
        args = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry["args"].items()
        }
        if entry["dtype"] is not None:
            args["dtype"] = _DTYPES[entry["dtype"]]
        module = leaf_class(**args, device="meta").to_empty(device="cpu")
    return module.train(bool(entry["training"]))


def _aliases(model: nn.Module, name: str) -> list[str]:
    """All names of the module, since a model may hold one object several times."""
    module = _submodule(model, name)
    return [alias for alias, other in model.named_modules(remove_duplicate=False) if other is module]


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise ValueError(f"the model has no module {name!r}") from error


def _is_below(name: str, changed: Mapping[str, Any]) -> bool:
    return any(name.startswith(f"{parent}.") or parent == "" for parent in changed)
