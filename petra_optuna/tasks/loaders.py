"""Loaders as splits: the rows that a loader gives are the rows of its split, and no two splits share one."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from petra_optuna.errors import TaskError
from petra_optuna.tasks.fingerprint import content_sha256
from petra_optuna.tasks.split import Split, Unpack

ADVICE = (
    "give a loader with shuffle=True or a SubsetRandomSampler, and put weights of classes into the loss, or "
    "repeated rows into a torch.utils.data.Subset"
)


def split_of(name: str, loader: DataLoader[Any], unpack: Unpack) -> Split:
    """The split of a loader: its data set, collate function and rows; order and batch size do not count.

    Args:
        name: Name of the split.
        loader: Loader with the order of the file or a random one, of all rows or of some.
        unpack: Function from a batch to inputs and target.

    Raises:
        TaskError: When it is no loader, or draws rows in a way that a split cannot keep.
    """
    if not isinstance(loader, DataLoader):
        raise TaskError(f"every split must be a torch DataLoader, got {type(loader).__name__}")
    if loader.batch_size is None and loader.batch_sampler is None:
        raise TaskError("a DataLoader with batch_size=None has no samples to batch; give it a batch size")
    dataset = loader.dataset
    if not isinstance(dataset, IterableDataset) and hasattr(type(dataset), "__len__"):
        rows = _rows(name, loader)
        if rows is not None and list(rows) != list(range(len(dataset))):  # type: ignore[arg-type]
            dataset = Subset(dataset, rows)
    return Split(dataset, loader.collate_fn, unpack, name=name)


def _rows(name: str, loader: DataLoader[Any]) -> Sequence[int] | None:
    """The rows that the loader gives, in order; None where it gives all."""
    if type(loader).__iter__ is not DataLoader.__iter__:
        raise TaskError(
            f"the {name} loader is a {type(loader).__name__}, which makes batches its own way; {ADVICE}"
        )
    batches = loader.batch_sampler
    if type(batches) is not BatchSampler:
        raise TaskError(
            f"the {name} loader's batch sampler {type(batches).__name__} cannot be kept; {ADVICE}"
        )
    sampler: Any = batches.sampler
    if type(sampler) is RandomSampler:
        if sampler.replacement or sampler._num_samples not in (None, len(sampler.data_source)):
            raise TaskError(
                f"the {name} loader's RandomSampler draws with replacement or only some of the rows; {ADVICE}"
            )
        return range(len(sampler.data_source))
    if type(sampler) is SubsetRandomSampler:
        return _as_list(sampler.indices)
    if type(sampler) is SequentialSampler:
        rows: Sequence[int] = range(len(sampler.data_source))
    elif isinstance(sampler, list | tuple | range | Tensor | np.ndarray):
        rows = _as_list(sampler)
    else:
        raise TaskError(f"the {name} loader's {type(sampler).__name__} cannot be kept; {ADVICE}")
    last = len(rows) % batches.batch_size if batches.drop_last else 0
    return rows[: len(rows) - last]


def _as_list(indices: Any) -> list[int]:
    return [int(index) for index in indices]


def check_apart(splits: Mapping[str, Split]) -> None:
    """Check that no two splits share a row, except that calibration may be a part of train.

    Rows are compared where it can be known where they lie: through subsets and concatenations down to the
    data set, its tensors in memory, its files (``samples``) or its array (``data``).

    Args:
        splits: Splits by name.

    Raises:
        TaskError: When two share rows; the text says which and how many.
    """
    places = {name: set(_places(split.dataset, range(len(split)))) for name, split in splits.items()}
    for one, other in itertools.combinations(splits, 2):
        if {one, other} == {"train", "calibration"}:
            continue
        shared = len(places[one] & places[other])
        if not shared and len(splits[one]) == len(splits[other]):
            same = content_sha256(splits[one]) == content_sha256(splits[other])
            shared = len(splits[other]) if same else 0
        if shared:
            raise TaskError(
                f"{shared} of the {len(splits[other])} rows of {other} are rows of {one} too; "
                "give splits that share no row"
            )


def _places(dataset: Any, rows: Sequence[int]) -> Iterator[tuple[Any, Any]]:
    """Where each of the rows lies: a source, and a place in it."""
    inner = _wrapped(dataset)
    if isinstance(dataset, Subset):
        yield from _places(dataset.dataset, [int(dataset.indices[row]) for row in rows])
    elif isinstance(dataset, ConcatDataset):
        ends = [0, *dataset.cumulative_sizes]
        for part, begin, end in zip(dataset.datasets, ends, ends[1:], strict=False):
            yield from _places(part, [row - begin for row in _positive(rows, ends[-1]) if begin <= row < end])
    elif inner is not None:
        yield from _places(inner, rows)
    else:
        source, found = _source(dataset)
        for row in _positive(rows, len(dataset)):
            yield source, row if found is None else found[row]


def _positive(rows: Sequence[int], count: int) -> Iterator[int]:
    return (row + count if row < 0 else row for row in rows)


def _wrapped(dataset: Any) -> Dataset[Any] | None:
    """The data set inside one that changes samples and keeps their rows; None where there is none."""
    held = [value for value in getattr(dataset, "__dict__", {}).values() if isinstance(value, Dataset)]
    return (
        held[0] if len(held) == 1 and hasattr(held[0], "__len__") and len(held[0]) == len(dataset) else None
    )


def _source(dataset: Dataset[Any]) -> tuple[Any, Sequence[Any] | None]:
    """A key of where the data lies, and the place of each row there; None where the row is the place."""
    count = len(dataset)  # type: ignore[arg-type]
    if isinstance(dataset, TensorDataset):
        first = dataset.tensors[0]
        step = first.stride(0) * first.element_size() if first.ndim else 0
        if step and first.numel():
            return "memory", range(first.data_ptr(), first.data_ptr() + step * count, step)
    samples = getattr(dataset, "samples", None)
    if isinstance(samples, list) and len(samples) == count and all(map(_is_file, samples)):
        return "file", [str(sample[0]) for sample in samples]
    data = getattr(dataset, "data", None)
    if isinstance(data, Tensor | np.ndarray) and len(data) == count:
        array = data.detach().cpu().numpy() if isinstance(data, Tensor) else data
        if not array.dtype.hasobject:
            return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest(), None
    return id(dataset), None


def _is_file(sample: Any) -> bool:
    return isinstance(sample, tuple) and len(sample) > 0 and isinstance(sample[0], str | PurePath)
