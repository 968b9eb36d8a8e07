"""EDGETUNE's workload OD: a small YOLO on images with objects, whose dropout is tuned."""

from __future__ import annotations

import functools
from pathlib import Path

from optuna.distributions import FloatDistribution, IntDistribution

from petra_optuna.edgetune.workload import Workload
from petra_optuna.nn.randomness import seeded
from petra_optuna.tasks.detection import build_model, detection_task, read_detection

TRAINING_SPACE = {
    "batch_size": IntDistribution(8, 128, log=True),
    "learning_rate": FloatDistribution(3e-4, 1e-2, log=True),
}
"""Where AdamW learns. Batches are smaller than EDGETUNE's 32 to 512: small sets have few steps an epoch."""


def build(*, data_root: Path | None, cache_dir: Path, seed: int) -> Workload:
    """A small YOLO on images in COCO's or YOLO's format, dropout 0.1 to 0.5.

    Dropout does not change the architecture: all networks of this workload have one latency.

    Args:
        data_root: Folder of the data set.
        cache_dir: Folder of the decoded pixels.
        seed: Seed of the weights of the task's own network.

    Raises:
        DataError: When images or annotations are missing, damaged or of another layout.
        TaskError: When faster-coco-eval is not installed.
    """
    data = read_detection(data_root, cache_dir)
    network = functools.partial(build_model, len(data.labels))
    with seeded(seed):
        model = network()
    return Workload(
        "od",
        detection_task(data, model, network, trained=False),
        network,
        {"dropout": FloatDistribution(0.1, 0.5)},
        TRAINING_SPACE,
        "adamw",
    )
