"""EDGETUNE's workload OD: a small YOLO on images with objects, whose dropout is tuned."""

from __future__ import annotations

import functools
from pathlib import Path

from optuna.distributions import FloatDistribution

from petra_optuna.edgetune.workload import TRAINING_SPACE, Workload
from petra_optuna.nn.randomness import seeded
from petra_optuna.tasks.detection import build_model, detection_task, read_detection

DROPOUT = FloatDistribution(0.1, 0.5)
LEARNING_RATE = FloatDistribution(3e-4, 1e-2, log=True)
"""Where AdamW learns."""


def build(*, data_root: Path | None, cache_dir: Path, seed: int) -> Workload:
    """A small YOLO on images in COCO's or YOLO's format, dropout 0.1 to 0.5.

    Dropout does not change the architecture: all networks of this workload have one latency.

    Args:
        data_root: Folder of the data set.
        cache_dir: Folder of the decoded pixels.
        seed: Seed of the weights of the task's own network, which has the least dropout.

    Raises:
        DataError: When images or annotations are missing, damaged or of another layout.
        TaskError: When faster-coco-eval is not installed.
    """
    data = read_detection(data_root, cache_dir)
    network = functools.partial(build_model, len(data.labels))
    with seeded(seed):
        model = network(dropout=DROPOUT.low)
    return Workload(
        "od",
        detection_task(data, model, network, trained=False),
        network,
        {"dropout": DROPOUT},
        {**TRAINING_SPACE, "learning_rate": LEARNING_RATE},
        "adamw",
    )
