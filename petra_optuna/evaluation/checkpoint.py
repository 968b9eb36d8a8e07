"""A compressed model on disk: JSON for the structure, safetensors for the weights.

A checkpoint is read together with the base model that the pipeline started from: a fresh copy of it
gets the changed layers and all tensors. Nothing is unpickled and no code is named by the file, so a
checkpoint from a shared folder cannot run anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor, nn

from petra_optuna.errors import OperationFailed, StudyError
from petra_optuna.evaluation.structure import (
    apply_changes,
    changed_modules,
    get_tensor,
    set_tensor,
    tensor_names,
)
from petra_optuna.files import write_atomically
from petra_optuna.nn.copying import private_copy

FORMAT = 1
STRUCTURE_FILE = "structure.json"
WEIGHTS_FILE = "weights.safetensors"
_STRUCTURE_KEY = "structure"
_LENGTH_BYTES = 8

Base = nn.Module | Callable[[], nn.Module]


class DamagedCheckpoint(StudyError, ValueError):
    """The checkpoint is incomplete, was altered, or belongs to another base model."""


def to_bytes(model: nn.Module, base: Base) -> bytes:
    """The model as one safetensors file with the structure in its metadata; equal models, equal bytes.

    Args:
        model: Model that operations made of ``base``.
        base: The model that the pipeline started from, or a function that makes it.

    Raises:
        OperationFailed: When a module differs from the base's in a way that cannot be rebuilt.
    """
    structure, tensors = _take_apart(model, _original(base))
    return write_tensors(tensors, metadata={_STRUCTURE_KEY: _dump(structure)})


def from_bytes(data: bytes, base: Base) -> nn.Module:
    """Inverse of ``to_bytes``: equal to the saved model bit for bit, in tensors and outputs.

    Raises:
        DamagedCheckpoint: When the data is not a whole checkpoint of this base.
    """
    try:
        return _put_together(_parse(_metadata(data)), read_tensors(data), base)
    except SafetensorError as error:
        raise DamagedCheckpoint(f"the checkpoint is damaged ({error}); make it anew") from error


def save(model: nn.Module, base: Base, folder: Path) -> None:
    """Write ``structure.json`` and ``weights.safetensors`` into ``folder``, which is made if missing.

    Raises:
        OperationFailed: When a module differs from the base's in a way that cannot be rebuilt.
    """
    structure, tensors = _take_apart(model, _original(base))
    write_atomically(folder / WEIGHTS_FILE, write_tensors(tensors))
    write_atomically(folder / STRUCTURE_FILE, json.dumps(structure, indent=1).encode())


def load(folder: Path, base: Base) -> nn.Module:
    """Inverse of ``save``.

    Raises:
        DamagedCheckpoint: When the data is not a whole checkpoint of this base, or a file is missing.
    """
    try:
        structure = _parse((folder / STRUCTURE_FILE).read_text(encoding="utf-8"))
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise DamagedCheckpoint(
            f"{folder} holds no checkpoint: {Path(error.filename or WEIGHTS_FILE).name} is missing"
        ) from error
    except (SafetensorError, UnicodeDecodeError) as error:
        raise DamagedCheckpoint(f"the checkpoint in {folder} is damaged ({error}); make it anew") from error
    return _put_together(structure, tensors, base)


def _take_apart(model: nn.Module, base: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    first_names: dict[int, str] = {}
    tied: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    frozen: list[str] = []
    strides: dict[str, list[int]] = {}
    for name in tensor_names(model):
        tensor = get_tensor(model, name)
        if id(tensor) in first_names:
            tied[name] = first_names[id(tensor)]
            continue
        first_names[id(tensor)] = name
        tensors[name] = tensor.detach().contiguous().clone()
        if tensor.stride() != torch.empty(tensor.shape, device="meta").stride():
            strides[name] = list(tensor.stride())
        if isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
            frozen.append(name)
    structure = {
        "format": FORMAT,
        "modules": changed_modules(model, base),
        "tensors": tensor_names(model),
        "tied": tied,
        "frozen": frozen,
        **({"strides": strides} if strides else {}),
    }
    return {**structure, "sha256": _digest(structure, tensors)}, tensors


def _put_together(structure: Mapping[str, Any], tensors: Mapping[str, Tensor], base: Base) -> nn.Module:
    claims = {key: value for key, value in structure.items() if key != "sha256"}
    if structure.get("format") != FORMAT or _digest(claims, tensors) != structure.get("sha256"):
        raise DamagedCheckpoint(
            f"the checkpoint was altered or is not of format {FORMAT}; make it anew with this version"
        )
    model = private_copy(_original(base))
    try:
        model = apply_changes(model, structure["modules"])
        _fill(model, structure, tensors)
    except (OperationFailed, ValueError) as error:
        raise DamagedCheckpoint(f"the checkpoint belongs to another model ({error})") from error
    if tensor_names(model) != structure["tensors"]:
        raise DamagedCheckpoint("the checkpoint belongs to another model: its tensors have other names")
    return model


def _fill(model: nn.Module, structure: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    frozen, strides = set(structure["frozen"]), structure.get("strides", {})
    filled: dict[str, Tensor] = {}
    for name in structure["tensors"]:
        source = structure["tied"].get(name, name)
        if source not in filled:
            tensor = _laid_out(tensors[source], strides.get(source))
            is_parameter = source in parameters
            filled[source] = nn.Parameter(tensor, source not in frozen) if is_parameter else tensor
        set_tensor(model, name, filled[source])


def _laid_out(tensor: Tensor, strides: list[int] | None) -> Tensor:
    """The tensor as it lay in memory, where that leaves no gaps: kernels sum in that order."""
    if strides is None:
        return tensor
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, strides, strict=True))
    if last + 1 != tensor.numel():
        return tensor
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)


def _original(base: Base) -> nn.Module:
    return base if isinstance(base, nn.Module) else base()


def _dump(structure: Mapping[str, Any]) -> str:
    return json.dumps(structure, sort_keys=True, separators=(",", ":"))


def _parse(text: str) -> dict[str, Any]:
    try:
        structure = json.loads(text)
    except json.JSONDecodeError as error:
        raise DamagedCheckpoint(f"the checkpoint's structure is damaged ({error}); make it anew") from error
    if not isinstance(structure, dict):
        raise DamagedCheckpoint("the checkpoint's structure is damaged: it must be a JSON object")
    return structure


def _metadata(data: bytes) -> str:
    """The structure's text: a safetensors file starts with the length of its JSON header."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    try:
        header = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
        return str(header["__metadata__"][_STRUCTURE_KEY])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint("the checkpoint is damaged: it has no structure; make it anew") from error


def _digest(claims: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(_dump(claims).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
