"""Class indices of a split's samples."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from petra_optuna.errors import DataError
from petra_optuna.tasks.batch import own_unpack
from petra_optuna.tasks.split import Split, default_unpack


def known_classes(split: Split) -> Tensor | None:
    """Class index of each sample (N,), where the data set has them at hand; None where it has not."""
    found = _known(split.dataset, own_unpack(split.unpack) is default_unpack)
    return found if found is not None and len(found) == len(split) else None


def class_indices(split: Split) -> list[int]:
    """Class index of each target, from the data set's own list where it has one, else by reading all.

    Raises:
        DataError: When targets are no class indices, or a sample cannot be read.
    """
    known = known_classes(split)
    if known is not None:
        return known.tolist()
    return [index for _, targets in split.batches(256) for index in _flat(targets)]


def _known(dataset: Dataset[Any], last_is_target: bool) -> Tensor | None:
    if type(dataset) is Subset:
        whole = _known(dataset.dataset, last_is_target)
        return None if whole is None else whole[torch.as_tensor(dataset.indices, dtype=torch.long)]
    if type(dataset) is ConcatDataset:
        parts = [_known(part, last_is_target) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return torch.cat(known) if len(known) == len(parts) else None
    if type(dataset) is TensorDataset:
        targets: Any = dataset.tensors[-1] if last_is_target else None
    else:
        targets = getattr(dataset, "targets", None)
    if targets is None or getattr(dataset, "target_transform", None) is not None:
        return None
    if not isinstance(targets, Tensor | np.ndarray) and not all(isinstance(one, Integral) for one in targets):
        return None
    indices = torch.as_tensor(targets)
    plain = indices.ndim == 1 and not indices.is_floating_point() and len(indices) == _length(dataset)
    return indices.long() if plain else None


def _length(dataset: Any) -> int:
    return len(dataset)


def _flat(targets: Tensor) -> list[int]:
    if targets.is_floating_point():
        raise DataError(f"labels are given, so targets must be class indices, got {targets.dtype}")
    return targets.reshape(-1).tolist()
