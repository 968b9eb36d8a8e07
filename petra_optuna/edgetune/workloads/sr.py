"""Speech recognition: M5 of several widths on spoken words."""

from __future__ import annotations

import functools
from pathlib import Path

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from petra_optuna.edgetune.workload import Workload
from petra_optuna.models import M5
from petra_optuna.tasks.classification import untrained_task
from petra_optuna.tasks.speech import read_speech

EMBEDDINGS = (32, 64, 128)
"""Widths of EDGETUNE, section 5.1."""

TRAINING_SPACE = {
    "batch_size": IntDistribution(32, 512, log=True),
    "learning_rate": FloatDistribution(1e-3, 3e-2, log=True),
}
"""EDGETUNE's batch sizes, and learning rates by which AdamW trains M5 on Free Spoken Digits.

At batches of 32 and 64 the least and the largest rate reach 77 and 81 % in four epochs of 2,428 clips. At
a batch of 512 these have five steps an epoch, in which the statistics of the norms do not follow the weights:
after six epochs the network is right on 27 % of the test clips, and on 72 % with the statistics of the batch.
"""


def build(*, data_root: Path | None, cache_dir: Path, seed: int) -> Workload:
    """M5 by ``embedding``, its base width, on clips (1, 8000): one second at 8 kHz.

    Args:
        data_root: Folder of the recordings as the task ``speech`` reads it.
        cache_dir: Folder of the decoded clips.
        seed: Seed of the weights of the task's own network, which has the least width.

    Raises:
        DataError: When recordings are missing, damaged or of another layout.
    """
    data = read_speech(data_root, cache_dir)
    network = functools.partial(M5, 1, len(data.labels))
    task = untrained_task(data, functools.partial(network, embedding=EMBEDDINGS[0]), seed)
    space = {"embedding": CategoricalDistribution(EMBEDDINGS)}
    return Workload("sr", task, network, space, TRAINING_SPACE, optimizer="adamw")
