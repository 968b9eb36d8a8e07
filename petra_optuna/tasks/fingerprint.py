"""What a task is, as a hash: two tasks with equal fingerprints give the same results."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.nn.inputs import Inputs, input_names, tensors
from petra_optuna.nn.randomness import seeded
from petra_optuna.source import source_sha256
from petra_optuna.tasks.guard import contents
from petra_optuna.tasks.split import Split

SAMPLES_READ = 1024


@runtime_checkable
class Fingerprinted(Protocol):
    """A data set that knows its own hash, so that not every sample has to be read."""

    def fingerprint(self) -> str:
        """Hash of everything that the data set can return."""


def fingerprint_of(
    model: nn.Module,
    splits: Mapping[str, Split | None],
    metric_name: str,
    functions: Sequence[Callable[..., Any] | None] = (),
    settings: Mapping[str, Any] | None = None,
) -> str:
    """SHA-256 of architecture, weights, data, metric name and the source of functions.

    Tensor data sets and data sets with a ``fingerprint()`` of their own count in full; of others
    up to 1,024 evenly spaced samples and the length do: reading all of a large set would take as
    long as an epoch at each start. Of ``settings`` those that say something count.
    """
    digest = hashlib.sha256(metric_name.encode())
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    for name, value in {"frozen": frozen, **(settings or {})}.items():
        if value:
            digest.update(f"{name} {json.dumps(value, sort_keys=True)}".encode())
    digest.update(text_of(model).encode())
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        digest.update(name.encode())
        _update(digest, tensor)
    codes = {type(module) for module in model.modules()} | {function for function in functions if function}
    digest.update("".join(sorted(source_sha256(code) for code in codes)).encode())
    for name, split in splits.items():
        digest.update(f"{name} {0 if split is None else len(split)}".encode())
        if split is not None:
            _update_split(digest, contents(split))
            digest.update(source_sha256(split.augment).encode())
    return digest.hexdigest()


def text_of(model: nn.Module) -> str:
    """The model's text, the same in all processes: it may hold a function, and that its address."""
    return re.sub(r"0x[0-9a-f]+", "", repr(model))


def tensor_sha256(*parts: Tensor) -> str:
    """SHA-256 of shapes, types and contents."""
    digest = hashlib.sha256()
    for part in parts:
        _update(digest, part)
    return digest.hexdigest()


def _update_split(digest: Any, split: Split) -> None:
    if isinstance(split.dataset, Fingerprinted):
        digest.update(split.dataset.fingerprint().encode())
    elif isinstance(split.dataset, TensorDataset):
        digest.update(tensor_sha256(*split.dataset.tensors).encode())
    else:
        for inputs, targets in _spread(split):
            digest.update(" ".join(input_names(inputs)).encode())
            for tensor in (*tensors(inputs), targets):
                _update(digest, tensor)


def _spread(split: Split) -> list[tuple[Inputs, Tensor]]:
    step = -(-len(split) // SAMPLES_READ)
    chosen = range(0, len(split), step)
    chunks = [list(chosen[start : start + 64]) for start in range(0, len(chosen), 64)]
    with seeded(0):
        loader: DataLoader[Any] = DataLoader(split.dataset, batch_sampler=chunks, collate_fn=split.collate)
        return [split.unpack(batch) for batch in loader]


def _update(digest: Any, tensor: Tensor) -> None:
    array = tensor.detach().cpu().contiguous()
    digest.update(f"{array.dtype}{tuple(array.shape)}".encode())
    digest.update(array.reshape(-1).view(torch.uint8).numpy())
