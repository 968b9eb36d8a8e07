"""All files on the test split, which is read once: each batch goes through every file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from petra_optuna.errors import MeasurementFailed, TrialError, foreign_errors_as
from petra_optuna.evaluation import predictor
from petra_optuna.nn.inputs import batch_size_of
from petra_optuna.tasks import Outputs, Split, Task

_BATCH = 256


@dataclasses.dataclass(frozen=True)
class TestPredictions:
    """Outputs and quality by file, the targets, and why a file has none of them."""

    outputs: Mapping[str, np.ndarray]
    quality: Mapping[str, float]
    failures: Mapping[str, str]
    targets: np.ndarray


def judged(
    files: Mapping[str, Path],
    task: Task,
    split: Split,
    threads: int,
    progress: Callable[[int], None],
    places: Mapping[str, tuple[str, str]],
) -> TestPredictions:
    """Run every file on the split.

    Args:
        files: By any name.
        task: Whose metric counts.
        split: Read once.
        threads: Of each session.
        progress: Called with the number of samples done.
        places: Runtime and device of each file.
    """
    failures: dict[str, str] = {}
    running: dict[str, Outputs] = {}
    for name, path in files.items():
        try:
            running[name] = Outputs(predictor(path, threads, *places[name]))
        except TrialError as error:
            failures[name] = str(error)
    targets = []
    done = 0
    for inputs, target in split.batches(_BATCH):
        targets.append(target.numpy())
        for name in [name for name in running if name not in failures]:
            try:
                running[name].add(inputs, len(target))
            except TrialError as error:
                failures[name] = str(error)
        done += batch_size_of(inputs)
        progress(done)
    joined = np.concatenate(targets)
    outputs, quality = {}, {}
    for name in [name for name in running if name not in failures]:
        try:
            with foreign_errors_as(MeasurementFailed, task.metric.name):
                outputs[name] = running[name].joined()
                quality[name] = task.score(outputs[name], joined)
        except TrialError as error:
            failures[name] = str(error)
    return TestPredictions(outputs, quality, failures, joined)
