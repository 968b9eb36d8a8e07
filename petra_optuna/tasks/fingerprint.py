"""What a task is, as a hash: two tasks with equal fingerprints give the same results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from petra_optuna.nn.inputs import Inputs, input_names, tensors
from petra_optuna.nn.randomness import seeded
from petra_optuna.source import source_sha256
from petra_optuna.tasks.batch import own_unpack
from petra_optuna.tasks.calibration import Drawn
from petra_optuna.tasks.guard import contents
from petra_optuna.tasks.held import held_sha256, text_of
from petra_optuna.tasks.metrics import METRICS, Metric
from petra_optuna.tasks.reading import Named
from petra_optuna.tasks.split import Split

SAMPLES_READ = 1024
_KNOWN = ("petra_optuna.", "torch.utils.data.")
"""Packages whose collate and unpacking functions stored studies do not count."""


@runtime_checkable
class Fingerprinted(Protocol):
    """A data set that knows its own hash, so that not every sample has to be read."""

    def fingerprint(self) -> str:
        """Hash of everything that the data set can return."""


def fingerprint_of(
    model: nn.Module,
    splits: Mapping[str, Split | None],
    metric: Metric,
    functions: Sequence[Callable[..., Any] | None] = (),
    settings: Mapping[str, Any] | None = None,
) -> str:
    """SHA-256 of architecture, weights, data, metric, functions, and what model and functions hold.

    Tensor data sets and data sets with a ``fingerprint()`` of their own count in full; of others
    up to 1,024 evenly spaced samples and the length do: reading all of a large set would take as
    long as an epoch at each start. What a collate or unpacking function makes of samples is read too. Of
    ``settings`` those that say something count.

    Raises:
        TaskError: When the model or a function holds something that cannot be hashed.
    """
    digest = hashlib.sha256(metric.name.encode())
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    for name, value in {"frozen": frozen, **(settings or {})}.items():
        if value:
            digest.update(f"{name} {json.dumps(value, sort_keys=True)}".encode())
    digest.update(text_of(model).encode())
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        digest.update(name.encode())
        _update(digest, tensor)
    functions = [*functions, metric.function]
    codes = {source_sha256(type(module)) for module in model.modules()}
    codes |= {source_sha256(function) for function in functions if function is not None}
    digest.update("".join(sorted(codes)).encode())
    for name, split in splits.items():
        split = None if split is None else _as_identified(split)
        digest.update(f"{name} {0 if split is None else len(split)}".encode())
        if split is not None:
            _update_split(digest, split)
            digest.update(source_sha256(split.augment).encode())
    augments = [None if split is None else split.augment for split in splits.values()]
    if metric not in METRICS:
        digest.update(f"{metric.direction} {source_sha256(metric.per_sample)}".encode())
        functions.append(metric.per_sample)
        if metric.prepare is not None:
            digest.update(source_sha256(metric.prepare).encode())
            functions.append(metric.prepare)
    digest.update(held_sha256(model, *functions, *augments).encode())
    return digest.hexdigest()


def content_sha256(split: Split) -> str:
    """SHA-256 of what a split gives: its samples, of large sets 1,024 of them."""
    digest = hashlib.sha256()
    _update_split(digest, split)
    return digest.hexdigest()


def tensor_sha256(*parts: Tensor) -> str:
    """SHA-256 of shapes, types and contents."""
    digest = hashlib.sha256()
    for part in parts:
        _update(digest, part)
    return digest.hexdigest()


def _as_identified(split: Split) -> Split:
    """The split whose content stands for this one: without its seal, and what a drawn one is drawn from."""
    split = contents(split)
    return split.dataset.identity if isinstance(split.dataset, Drawn) else split


def _update_split(digest: Any, split: Split) -> None:
    dataset = split.dataset
    if isinstance(dataset, Fingerprinted):
        digest.update(dataset.fingerprint().encode())
    elif isinstance(dataset, TensorDataset):
        digest.update(tensor_sha256(*dataset.tensors).encode())
    if not isinstance(dataset, Fingerprinted | TensorDataset) or _reshapes(split):
        for inputs, targets in _spread(split):
            digest.update(" ".join(input_names(inputs)).encode())
            for tensor in (*tensors(inputs), targets):
                _update(digest, tensor)
    if isinstance(dataset, Subset) and len(split) > SAMPLES_READ:
        digest.update(tensor_sha256(torch.as_tensor(dataset.indices)).encode())


def _reshapes(split: Split) -> bool:
    """Whether a function of the user stands between the data set and the model."""
    functions = [function for function in (split.collate, own_unpack(split.unpack)) if function is not None]
    return not all(getattr(function, "__module__", "").startswith(_KNOWN) for function in functions)


def _spread(split: Split) -> list[tuple[Inputs, Tensor]]:
    step = -(-len(split) // SAMPLES_READ)
    chosen = range(0, len(split), step)
    chunks = [list(chosen[start : start + 64]) for start in range(0, len(chosen), 64)]
    with seeded(0):
        dataset = Named(split.dataset, split.name)
        loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=chunks, collate_fn=split.collate)
        return [split.unpack(batch) for batch in loader]


def _update(digest: Any, tensor: Tensor) -> None:
    array = tensor.detach().cpu().contiguous()
    digest.update(f"{array.dtype}{tuple(array.shape)}".encode())
    digest.update(array.reshape(-1).view(torch.uint8).numpy())
