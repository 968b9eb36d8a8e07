"""Image classification: ResNets of several depths on CIFAR-10."""

from __future__ import annotations

from pathlib import Path

from optuna.distributions import CategoricalDistribution

from petra_optuna.edgetune.workload import Workload
from petra_optuna.tasks.cifar10 import build_model, read_cifar10
from petra_optuna.tasks.classification import untrained_task

DEPTHS = (18, 34, 50)
"""Depths of EDGETUNE, section 5.1."""


def build(*, data_root: Path | None, cache_dir: Path, seed: int) -> Workload:
    """ResNet-18, 34 or 50 by ``depth`` on images (3, 32, 32).

    The networks are torchvision's, normalisation inside, trained by SGD with Nesterov momentum.

    Args:
        data_root: Folder of CIFAR-10 as the task ``cifar10`` reads it; the archive is downloaded when None.
        cache_dir: Folder of the archive and the decoded pixels.
        seed: Seed of the weights of the task's own network, a ResNet-18.

    Raises:
        DataError: When images are missing, damaged or of another layout.
    """
    data = read_cifar10(data_root, cache_dir)
    task = untrained_task(data, build_model, seed)
    return Workload("ic", task, build_model, {"depth": CategoricalDistribution(DEPTHS)})
