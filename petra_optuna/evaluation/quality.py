"""The task's metric of a file, in the runtime that it is for, and of a model in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from petra_optuna.errors import MeasurementFailed, foreign_errors_as
from petra_optuna.nn.inputs import Inputs, forward, take, tensors, to_feeds
from petra_optuna.runtimes import DEFAULT
from petra_optuna.runtimes import runtime as find_runtime
from petra_optuna.tasks import Split, Task

_CERTIFIED_SAMPLES, _LEAST_CERTIFIED = 256, 8
_CERTIFIED_BYTES = 32 * 2**20


def certified_inputs(task: Task) -> Inputs:
    """Selection samples, spread over the split, for the certificate: up to 256, or 32 MB with outputs."""
    split, one = task.selection, take(task.example, 1)
    with torch.no_grad():
        outputs = forward(task.model, one)
    affordable = _CERTIFIED_BYTES // max(1, sum(tensor.nbytes for tensor in (*tensors(one), outputs)))
    count = min(_CERTIFIED_SAMPLES, max(_LEAST_CERTIFIED, affordable))
    batch, _ = next(split.batches(count, fraction=count / len(split), limit=count))
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
