"""Sets of the UCR and UEA archives as tasks: InceptionTime on labelled series."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import nn

from petra_optuna.errors import DataError
from petra_optuna.tasks import Split, Task
from petra_optuna.tasks.checks import check_classes
from petra_optuna.tasks.classification import BaseRecipe, LabeledSplits, classification_task, trained_base
from petra_optuna.tasks.images import positions_in_class
from petra_optuna.tasks.series.network import Scales, build_network
from studies.series.padded import PaddedInceptionTime, SeriesSet, padded_batch, typical_first
from studies.series.ts_file import LabeledSeries, read_ts

SETS = (
    *("ACSF1", "ArrowHead", "BasicMotions", "GunPoint", "ItalyPowerDemand", "JapaneseVowels"),
    *("OSULeaf", "PLAID"),
)
"""Sets of labelled series that sktime brings. Those of JapaneseVowels and PLAID have several lengths."""
BATCH = 16
LEAST_STEPS = 40
"""Steps of an epoch: small sets are read several times, or an epoch would train nothing."""
SELECTION = 3
"""Of each class every so many series of the training file is selection."""


@dataclasses.dataclass(frozen=True)
class ArchiveSet:
    """The two files of a set.

    Attributes:
        name: Name of the set.
        train, test: Series of ``<name>_TRAIN.ts`` and ``<name>_TEST.ts``.
    """

    name: str
    train: LabeledSeries
    test: LabeledSeries

    @property
    def lengths(self) -> tuple[int, int]:
        """Fewest and most steps of a series."""
        steps = [series.shape[1] for part in (self.train, self.test) for series in part.series]
        return min(steps), max(steps)

    @property
    def axis(self) -> str:
        """What fixes the time axis of files, in one line."""
        shortest, longest = self.lengths
        if shortest == longest:
            return f"{self.name}: the time axis is fixed, because every series has {longest} steps"
        return f"{self.name}: the time axis is dynamic, series have {shortest} to {longest} steps"


def read_set(name: str, data_root: Path | None = None) -> ArchiveSet:
    """Read a set.

    Args:
        name: Name of the set.
        data_root: Folder with ``<name>/<name>_TRAIN.ts``; that of the sets which sktime brings when None.

    Raises:
        DataError: When there is no such folder, or a file is missing, damaged or of other channels.
    """
    root = data_root or _bundled()
    parts = [read_ts(root / name / f"{name}_{part}.ts") for part in ("TRAIN", "TEST")]
    channels = [len(part.series[0]) for part in parts]
    if channels[0] != channels[1] or parts[0].classes != parts[1].classes:
        raise DataError(f"the files of {name} in {root} differ in their channels or classes")
    return ArchiveSet(name, *parts)


def _bundled() -> Path:
    """Folder of the sets in sktime, which is not loaded for it."""
    found = importlib.util.find_spec("sktime")
    if found is None or not found.submodule_search_locations:
        raise DataError("the sets come with sktime; install it with `pip install petra-optuna[ucr]`")
    return Path(found.submodule_search_locations[0], "datasets", "data")


def task_of(data: ArchiveSet, cache_dir: Path, *, epochs: int = 40, filters: int = 32, seed: int = 0) -> Task:
    """The task of a set; its base is trained on the first call and kept.

    Of each class every third series of the training file is selection, starting with the first.

    Args:
        data: Series of the set.
        cache_dir: Folder in which the base is kept.
        epochs: Epochs of the base's training, of 40 steps or more.
        filters: Filters of each branch of InceptionTime.
        seed: Seed of the base's training.

    Raises:
        DataError: When a class has no training series, or a channel is constant.
    """
    shortest, longest = data.lengths
    splits = _splits(data)
    check_classes(splits["train"], data.train.classes)
    train = splits["train"].dataset
    assert isinstance(train, SeriesSet)
    steps = np.concatenate([series.numpy() for series in train.series], axis=1).T.astype(np.float64)
    names = tuple(f"channel {number}" for number in range(steps.shape[1]))
    scales = Scales.of(steps, names)
    dynamic = shortest < longest
    build: Callable[[Scales, int, int], nn.Module] = PaddedInceptionTime if dynamic else build_network
    network = functools.partial(build, scales, len(data.train.classes), filters)
    preprocess = {"layout": "NCT", "size": [len(names), None if dynamic else longest]}
    labeled = LabeledSplits(data.name, splits, data.train.classes, preprocess)
    base = trained_base(
        labeled,
        network,
        BaseRecipe(epochs=epochs, batch_size=BATCH, peak_lr=2e-3, optimizer="adamw"),
        structure={"network": repr(network())},
        cache_dir=cache_dir,
        seed=seed,
    )
    task = classification_task(labeled, base, network)
    return dataclasses.replace(task, dynamic={"input_0": {2: "time"}}) if dynamic else task


def _splits(data: ArchiveSet) -> dict[str, Split]:
    whole = SeriesSet(data.train, range(len(data.train.series)))
    selected = (positions_in_class(whole.targets) % SELECTION == 0).numpy()
    train, selection = np.flatnonzero(~selected).tolist(), np.flatnonzero(selected).tolist()
    lengths = [data.train.series[row].shape[1] for row in selection]
    selection = [selection[row] for row in typical_first(lengths)]
    repeats = max(1, -(-LEAST_STEPS * BATCH // len(train)))
    shortest, longest = data.lengths
    collate = padded_batch if shortest < longest else None
    return {
        "train": Split(SeriesSet(data.train, train, repeats), collate),
        "selection": Split(SeriesSet(data.train, selection), collate),
        "test": Split(SeriesSet(data.test, range(len(data.test.series))), collate),
    }
