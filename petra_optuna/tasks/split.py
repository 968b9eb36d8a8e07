"""One part of a task's data, read in batches that keep inputs and targets together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from petra_optuna.errors import TaskError
from petra_optuna.nn.inputs import Inputs
from petra_optuna.tasks.reading import Named

Unpack = Callable[[Any], tuple[Inputs, Tensor]]
TARGET_KEYS = ("target", "label", "labels", "y")
FRACTION_SEED = 20240917
"""Seed of the one order of samples for data fractions: a larger fraction contains every smaller one."""


def default_unpack(batch: Any) -> tuple[Inputs, Tensor]:
    """Split a batch into inputs and target.

    A tuple or list ends with the target and holds positional inputs before it, or one tuple or dict of
    inputs; a dict names the target ``target``, ``label``, ``labels`` or ``y``, and all else is a keyword
    input. Inputs may be None where the model has a default.

    Raises:
        TaskError: When the batch is neither; the text says what it was.
    """
    if isinstance(batch, tuple | list) and len(batch) >= 2:
        *parts, target = batch
        given = parts[0] if len(parts) == 1 and isinstance(parts[0], tuple | list | Mapping) else parts
        inputs = dict(given) if isinstance(given, Mapping) else tuple(given)
        if _are_tensors(inputs) and isinstance(target, Tensor):
            return inputs, target
    if isinstance(batch, Mapping):
        keys = [key for key in TARGET_KEYS if key in batch]
        inputs = {key: value for key, value in batch.items() if key not in keys}
        if len(keys) == 1 and _are_tensors(inputs) and isinstance(batch[keys[0]], Tensor):
            return inputs, batch[keys[0]]
    raise TaskError(
        f"a batch must be (inputs..., target) or a dict of tensors with one of {', '.join(TARGET_KEYS)}, "
        f"got {_describe(batch)}; give `unpack`, a function from a batch to (inputs, target)"
    )


@dataclasses.dataclass(frozen=True)
class Split:
    """A map-style data set and how its batches become inputs and targets.

    Attributes:
        dataset: Data set with ``__len__`` and ``__getitem__``; one with ``__getitems__`` is asked for a
            whole batch at once.
        collate: Turns what the data set returned for a batch into the batch; torch's default when None.
        unpack: Splits a batch into inputs and target.
        augment: Changes a whole training batch at random, by the given generator only.
        name: Name in messages; a task names its splits.
    """

    dataset: Dataset[Any]
    collate: Callable[[Any], Any] | None = None
    unpack: Unpack = default_unpack
    augment: Callable[[Inputs, torch.Generator], Inputs] | None = None
    name: str = dataclasses.field(default="data", compare=False)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.dataset)  # type: ignore[arg-type]

    def batches(
        self,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        fraction: float = 1.0,
        augment: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[Inputs, Tensor]]:
        """Pairs of inputs and targets, in file order or shuffled.

        Args:
            batch_size: Samples a batch; the last one may be smaller.
            shuffle_seed: Seed of order and augmentation; file order when None. A shuffled last batch of one
                sample is left out: batch normalisation cannot train on it.
            fraction: Share of the samples to read: the first ``ceil(fraction * n)``, two at least, of one
                fixed permutation, so that a larger fraction contains every smaller one.
            augment: Whether to apply ``self.augment``.
            limit: Largest number of samples to read.

        Raises:
            DataError: When a sample cannot be read; the text names it.
        """
        generator = torch.Generator().manual_seed(shuffle_seed or 0)
        order = self._indices(fraction)
        if shuffle_seed is not None:
            order = order[torch.randperm(len(order), generator=generator)]
        indices = order[:limit].tolist()
        chunks = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
        if shuffle_seed is not None and len(chunks) > 1 and len(chunks[-1]) == 1 < batch_size:
            chunks.pop()
        loader: DataLoader[Any] = DataLoader(
            Named(self.dataset, self.name),
            batch_sampler=chunks,
            collate_fn=self.collate,
            generator=generator,
        )
        for batch in loader:
            inputs, targets = self.unpack(batch)
            if augment and self.augment is not None:
                inputs = self.augment(inputs, generator)
            yield inputs, targets

    def steps(self, batch_size: int, fraction: float = 1.0) -> int:
        """Number of batches that ``batches`` gives with a shuffle seed."""
        count = len(self._indices(fraction))
        return max(1, count // batch_size + (count % batch_size > 1))

    def _indices(self, fraction: float) -> Tensor:
        """Indices of the samples of a data fraction, in file order."""
        if fraction >= 1.0:
            return torch.arange(len(self))
        permutation = torch.randperm(len(self), generator=torch.Generator().manual_seed(FRACTION_SEED))
        kept = permutation[: max(2, math.ceil(fraction * len(self)))]
        return kept.sort().values


def _are_tensors(inputs: tuple[Any, ...] | dict[str, Any]) -> bool:
    parts = tuple(inputs.values()) if isinstance(inputs, dict) else inputs
    return len(parts) > 0 and all(part is None or isinstance(part, Tensor) for part in parts)


def _describe(batch: Any) -> str:
    if isinstance(batch, Mapping):
        parts = (f"{key!r}: {type(value).__name__}" for key, value in batch.items())
        return f"dict {{{', '.join(parts)}}}"
    if isinstance(batch, tuple | list):
        return f"{type(batch).__name__} of ({', '.join(type(part).__name__ for part in batch)})"
    return type(batch).__name__
