"""The task's metric of a file, in the runtime that it is for, and of a model in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from petra_optuna.errors import MeasurementFailed, foreign_errors_as
from petra_optuna.nn.inputs import Inputs, forward, to_feeds
from petra_optuna.runtimes import DEFAULT
from petra_optuna.runtimes import runtime as find_runtime
from petra_optuna.tasks import Split, Task

_CERTIFIED_SAMPLES = 256


def certified_inputs(split: Split) -> Inputs:
    """At most 256 samples, spread over the split, on which the parity certificate is made."""
    fraction = _CERTIFIED_SAMPLES / len(split)
    batch, _ = next(split.batches(_CERTIFIED_SAMPLES, fraction=fraction, limit=_CERTIFIED_SAMPLES))
    return batch


def predictor(
    path: Path, threads: int, runtime: str = DEFAULT, device: str = "cpu"
) -> Callable[[Inputs], np.ndarray]:
    """A function that runs the file in the runtime, from inputs of the task to the file's output.

    Raises:
        RuntimeFailed: When the runtime cannot load the file.
    """
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


def quality_in_torch(model: nn.Module, task: Task) -> float:
    """The task's metric on the selection split of a model that is in evaluation mode and not lowered.

    Raises:
        MeasurementFailed: When the model or the metric cannot serve the split.
    """
    with torch.no_grad(), foreign_errors_as(MeasurementFailed, task.metric.name):
        return task.evaluate(lambda inputs: forward(model, inputs).numpy(), task.selection)
