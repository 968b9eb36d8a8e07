"""EDGETUNE's workload NLP: a recurrent network on AG News, whose stride is tuned."""

from __future__ import annotations

import functools
from pathlib import Path

from optuna.distributions import FloatDistribution, IntDistribution

from petra_optuna.edgetune.workload import TRAINING_SPACE, Workload
from petra_optuna.tasks import ag_news
from petra_optuna.tasks.classification import untrained_task

STRIDES = IntDistribution(1, 32, log=True)
LEARNING_RATE = FloatDistribution(1e-3, 3e-2, log=True)
"""AdamW learns in this range at every stride; SGD stays near chance for epochs."""


def build(*, data_root: Path | None, cache_dir: Path, seed: int) -> Workload:
    """A GRU on AG News that reads ``stride`` words at a step, 1 to 32.

    Args:
        data_root: Folder of the CSV files.
        cache_dir: Folder of cached files; none are needed here.
        seed: Seed of the weights of the task's own network, which has the least stride.

    Raises:
        DataError: When files are missing, damaged or of another layout.
    """
    data = ag_news.read_news(data_root)
    network = functools.partial(ag_news.build_model, len(data.preprocess["vocabulary"]))
    return Workload(
        "nlp",
        untrained_task(data, functools.partial(network, stride=STRIDES.low), seed),
        network,
        {"stride": STRIDES},
        {**TRAINING_SPACE, "learning_rate": LEARNING_RATE},
        "adamw",
    )
