"""All files on the test split, which is read once: each batch goes through every file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from petra_optuna.errors import MeasurementFailed, TrialError, foreign_errors_as
from petra_optuna.evaluation import predictor
from petra_optuna.nn.inputs import batch_size_of
from petra_optuna.tasks import Outputs, Split, Task, joined_targets


@dataclasses.dataclass(frozen=True)
class PlacedFile:
    """A file to run on the test split.

    Attributes:
        path: Path of the file.
        place: Runtime and device that run it.
    """

    path: Path
    place: tuple[str, str]


@dataclasses.dataclass(frozen=True)
class TestPredictions:
    """What files predict on the test split.

    Attributes:
        outputs: Outputs (N, ...) by name of the file, as ``Metric.prepared`` gives them: of the samples that
            the metric scores.
        quality: The task's metric by name of the file.
        failures: Why a file has neither, by its name.
        targets: Targets (N, ...), prepared likewise.
    """

    outputs: Mapping[str, np.ndarray]
    quality: Mapping[str, float]
    failures: Mapping[str, str]
    targets: np.ndarray


def predict(
    files: Mapping[str, PlacedFile], task: Task, split: Split, threads: int, progress: Callable[[int], None]
) -> TestPredictions:
    """Run every file on the split, which is read once.

    Args:
        files: Files by any name.
        task: Task whose metric counts.
        split: Split to read.
        threads: Threads of each session.
        progress: Called with the number of samples done.
    """
    failures: dict[str, str] = {}
    collected: dict[str, Outputs] = {}
    for name, file in files.items():
        try:
            collected[name] = Outputs(predictor(file.path, threads, *file.place), len(split))
        except TrialError as error:
            failures[name] = str(error)
    batches = []
    done = 0
    for inputs, target in split.batches(task.samples_per_call):
        batches.append(target.numpy())
        for name in [name for name in collected if name not in failures]:
            try:
                collected[name].add(inputs, len(target))
            except TrialError as error:
                failures[name] = str(error)
        done += batch_size_of(inputs)
        progress(done)
    targets = scored = joined_targets(batches)
    outputs, quality = {}, {}
    for name in [name for name in collected if name not in failures]:
        try:
            with foreign_errors_as(MeasurementFailed, task.metric.name):
                outputs[name], scored = task.metric.prepared(collected[name].joined(), targets)
                quality[name] = task.score_prepared(outputs[name], scored)
        except TrialError as error:
            failures[name] = str(error)
    return TestPredictions(outputs, quality, failures, scored)
