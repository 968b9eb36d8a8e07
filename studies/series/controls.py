"""Predictions that a model of a series must beat, with intervals that know that neighbours are alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from petra_optuna.nn.inputs import Inputs, batch_size_of, forward
from petra_optuna.results.confirmation.bootstrap import interval, resample
from petra_optuna.results.confirmation.record import Estimate
from petra_optuna.tasks import Split, Task
from petra_optuna.tasks.metrics import metric

METRICS = ("rmse", "mae", "r2")
RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What controls and the original say of a split.

    Attributes:
        outputs: Predictions (N,) by name; ``original`` is the model's.
        targets: Targets (N,).
    """

    outputs: Mapping[str, np.ndarray]
    targets: np.ndarray


def predictions(
    task: Task, split: Split, mean: float, persistence: Callable[[Inputs], np.ndarray] | None
) -> Predictions:
    """The mean of train, the given persistence, and the original.

    Args:
        task: Task of values.
        split: Split that may be read.
        mean: Mean of the targets of train.
        persistence: Maps the inputs of a batch to what is predicted when nothing changes; the target of the
            sample before when None, and the mean for the first one.
    """
    original, targets, unchanged = [], [], []
    with torch.inference_mode():
        for inputs, target in split.batches(task.samples_per_call):
            original.append(forward(task.model, inputs).reshape(batch_size_of(inputs)).numpy())
            targets.append(target.numpy())
            unchanged += [] if persistence is None else [persistence(inputs)]
    joined = np.concatenate(targets)
    outputs = {
        "mean of train": np.full(len(joined), mean, dtype=np.float32),
        "persistence": np.concatenate(unchanged or [np.array([mean]), joined[:-1]]).astype(np.float32),
        "original": np.concatenate(original),
    }
    return Predictions(outputs, joined)


def rows(found: Predictions, block: int, seed: int = 0) -> Iterator[list[object]]:
    """A row for each prediction: each metric with its 95 % interval of a blocked bootstrap.

    Args:
        found: Predictions of a split.
        block: Neighbouring samples that are drawn together.
        seed: Seed of the bootstrap.
    """
    tables = {
        name: resample(
            metric(name),
            list(found.outputs.values()),
            found.targets,
            RESAMPLES,
            np.random.default_rng(seed),
            block=block,
        )
        for name in METRICS
    }
    for column, (label, outputs) in enumerate(found.outputs.items()):
        cells: list[object] = [label]
        for name in METRICS:
            estimate = interval(metric(name)(outputs, found.targets), tables[name][:, column])
            cells += [f"{value:.4g}" for value in (estimate.value, estimate.low, estimate.high)]
        yield cells


def margin(found: Predictions, block: int, seed: int = 0) -> tuple[str, Estimate]:
    """The best control, and by how much less the original's RMSE is, in percent of the control's.

    The interval is that of the difference on the same resamples.

    Args:
        found: Predictions of a split.
        block: Neighbouring samples that are drawn together.
        seed: Seed of the bootstrap.
    """
    rmse = metric("rmse")
    names = [name for name in found.outputs if name != "original"]
    best = min(names, key=lambda name: rmse(found.outputs[name], found.targets))
    both = [found.outputs[best], found.outputs["original"]]
    table = resample(rmse, both, found.targets, RESAMPLES, np.random.default_rng(seed), block=block)
    control, original = (rmse(outputs, found.targets) for outputs in both)
    return best, interval(100 * (1 - original / control), 100 * (1 - table[:, 1] / table[:, 0]))
