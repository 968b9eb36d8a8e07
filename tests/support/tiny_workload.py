"""A workload that trains in tenths of a second: small convolutions on four noisy patterns."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from support.small_task import CLASSES, data
from torch import nn
from torch.utils.data import DataLoader

from petra_optuna.deploy import Artifact, Templates, lower
from petra_optuna.deploy.probe import Probe, probe
from petra_optuna.edgetune import TuningBudget, Workload
from petra_optuna.nn.randomness import seeded
from petra_optuna.tasks import Task

NAME = "tiny"
NOISE = 3.0
BUDGET = TuningBudget("multi", min_epochs=1, max_epochs=3, min_fraction=0.3)
"""Rungs at iterations 1 and 4: a whole epoch of a third of the data, then three of all."""


def network(width: int) -> nn.Module:
    """A network whose width alone decides its architecture."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * width, CLASSES)
    )


def make() -> Workload:
    """The workload: 256 images (1, 8, 8) to train on, 128 each for selection and test."""
    sets = [data(count, seed, NOISE) for seed, count in enumerate((256, 128, 128))]
    parts = [DataLoader(one, batch_size=32) for one in sets]
    labels = tuple(f"pattern {index}" for index in range(CLASSES))
    with seeded(0):
        model = network(2)
    task = Task.from_loaders(model, *parts, metric="accuracy", name=NAME, labels=labels, trained=False)
    return Workload(
        NAME,
        task,
        network,
        {"width": CategoricalDistribution((2, 4))},
        {
            "batch_size": IntDistribution(16, 64, log=True),
            "learning_rate": FloatDistribution(1e-2, 1e-1, log=True),
        },
    )


@contextlib.contextmanager
def quick_files() -> Iterator[None]:
    """Export each architecture once in all studies, and try it once in a process of its own."""
    shared = Templates()

    def lowered(*arguments: Any, templates: Templates, **options: Any) -> Artifact:
        return lower(*arguments, templates=shared, **options)

    module = sys.modules[lower.__module__]  # the package has a function of the same name
    probed: dict[int, Probe] = {}

    def probe_once(data: bytes, *arguments: Any, **options: Any) -> Probe:
        if len(data) not in probed:
            probed[len(data)] = probe(data, *arguments, **options)
        return probed[len(data)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("petra_optuna.edgetune.trial.lower", lowered)
        patch.setattr(module, "probe", probe_once)
        yield


def build(*, data_root: Path | None, cache_dir: Path, seed: int) -> Workload:
    """The same as a row of ``WORKLOADS``."""
    return make()
