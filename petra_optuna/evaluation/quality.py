"""Quality is computed by running the file, in the runtime that it is for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from petra_optuna.errors import MeasurementFailed, foreign_errors_as
from petra_optuna.nn.inputs import Inputs, to_feeds
from petra_optuna.runtimes import DEFAULT
from petra_optuna.runtimes import runtime as find_runtime
from petra_optuna.tasks import Split, Task

_CERTIFIED = 256


def certified_inputs(split: Split) -> Inputs:
    """At most 256 samples, spread over the split: what the parity certificate is made on."""
    batch, _ = next(split.batches(_CERTIFIED, fraction=_CERTIFIED / len(split), limit=_CERTIFIED))
    return batch


def predictor(
    path: Path, threads: int, runtime: str = DEFAULT, device: str = "cpu"
) -> Callable[[Inputs], np.ndarray]:
    """A function that runs the file in the runtime: inputs of the task to the file's output."""
    session = find_runtime(runtime).open(path, threads, device)
    return lambda inputs: session.run(to_feeds(inputs))[0]


def quality_of(
    path: Path, task: Task, split: Split, threads: int = 1, runtime: str = DEFAULT, device: str = "cpu"
) -> float:
    """The task's metric on a split, computed by running the file in the runtime.

    Raises:
        MeasurementFailed: When the file or the metric cannot serve the split.
    """
    with foreign_errors_as(MeasurementFailed, task.metric.name):
        return task.evaluate(predictor(path, threads, runtime, device), split)
