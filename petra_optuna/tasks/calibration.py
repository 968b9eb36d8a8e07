"""Calibration: a fixed random sample of the training data, read once for each task."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from petra_optuna.nn.inputs import Inputs
from petra_optuna.nn.randomness import seeded
from petra_optuna.tasks.classes import known_classes
from petra_optuna.tasks.reading import fetch
from petra_optuna.tasks.split import Split

SAMPLES = 512
SEED = 20250611
"""Seed of the order in which samples are drawn, and of random transforms while they are read."""


class Drawn(Dataset[Any]):
    """Samples of a split in random order, each read once, under a seed of its own.

    So random transforms give the same sample to every node, whoever read it first. A data set that makes
    whole batches is read each time, under the same seed.

    Args:
        source: Split to read from.
        rows: Its rows, in the order drawn.
        identity: Split that counts in the task's fingerprint instead.
    """

    def __init__(self, source: Split, rows: Sequence[int], identity: Split) -> None:
        self.source, self.rows, self.identity = source, tuple(rows), identity
        self._read: dict[int, Any] = {}

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        """One sample."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """Samples, or a batch where the data set makes batches."""
        for index in indices:
            if index in self._read:
                continue
            with seeded(SEED + index):
                sample = fetch(self.source.dataset, [self.rows[index]])
            if not isinstance(sample, list):
                with seeded(SEED):
                    return fetch(self.source.dataset, [self.rows[index] for index in indices])
            self._read[index] = sample[0]
        return [copy.deepcopy(self._read[index]) for index in indices]  # a collate function may change it


def drawn(train: Split, selection: Split | None = None) -> Split:
    """Up to 512 random samples of the training split, of each class its share and one at least.

    They are read without augmentation: the split's own, and that in the data set's ``transform`` where
    selection reads a data set of the same class with a transform of its own.

    Args:
        train: Training split.
        selection: Selection split, whose transforms are used.
    """
    like = None if selection is None else _leaf(selection.dataset)
    source = dataclasses.replace(train, dataset=_read_like(train.dataset, like), augment=None)
    rows = _order(train)[:SAMPLES].tolist()
    return dataclasses.replace(source, dataset=Drawn(source, rows, _evenly_spaced(train)))


def read_once(calibration: Split) -> Split:
    """The split with a data set that reads each sample once; one that does is returned as it is."""
    if isinstance(calibration.dataset, Drawn):
        return calibration
    order = _order(calibration).tolist()
    return dataclasses.replace(calibration, dataset=Drawn(calibration, order, calibration), augment=None)


def calibration_batches(calibration: Split, limit: int, batch_size: int) -> Iterator[tuple[Inputs, Tensor]]:
    """The first ``limit`` samples in batches; a last batch of one is left out where there are others.

    Batch normalisation cannot be measured on a batch of one sample.
    """
    count = min(limit, len(calibration))
    if batch_size > 1 and count > batch_size and count % batch_size == 1:
        count -= 1
    return calibration.batches(batch_size, limit=count)


def _order(split: Split) -> Tensor:
    """All rows in an order of which each beginning holds the classes in their shares."""
    permutation = torch.randperm(len(split), generator=torch.Generator().manual_seed(SEED))
    classes = known_classes(split)
    labels = [] if classes is None else sorted(set(classes.tolist()))
    if classes is None or len(labels) > SAMPLES:
        return permutation
    ranks = torch.empty(len(split), dtype=torch.double)
    for label in labels:
        rows = permutation[classes[permutation] == label]
        ranks[rows] = (torch.arange(len(rows), dtype=torch.double) + 0.5) / len(rows)
        ranks[rows[0]] = 0.0
    return permutation[ranks[permutation].argsort(stable=True)]


def _evenly_spaced(train: Split) -> Split:
    """What counts in the fingerprint for a drawn sample: what stored studies hold there.

    Which rows are drawn follows from train and this code, which cache keys hold.
    """
    step = -(-len(train) // SAMPLES)
    rows = range(0, len(train), step)
    return dataclasses.replace(train, dataset=Subset(train.dataset, list(rows)), augment=None)


def _leaf(dataset: Dataset[Any]) -> Dataset[Any]:
    if type(dataset) is Subset:
        return _leaf(dataset.dataset)
    return _leaf(dataset.datasets[0]) if type(dataset) is ConcatDataset else dataset


def _read_like(dataset: Dataset[Any], like: Dataset[Any] | None) -> Dataset[Any]:
    """The data set with the transforms of one of the same class, where it has some."""
    if type(dataset) is Subset:
        return Subset(_read_like(dataset.dataset, like), dataset.indices)
    if type(dataset) is ConcatDataset:
        return ConcatDataset([_read_like(part, like) for part in dataset.datasets])
    names = [name for name in ("transform", "transforms") if name in getattr(dataset, "__dict__", {})]
    if type(like) is not type(dataset) or like is dataset or not names:
        return dataset
    plain = copy.copy(dataset)
    for name in names:
        setattr(plain, name, getattr(like, name))
    return plain
