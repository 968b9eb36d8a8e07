"""Model-level parameters (the paper's H_M): how training nodes train."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from optuna.distributions import CategoricalDistribution, FloatDistribution

from petra_optuna.pipeline.fields import Fielded


@dataclasses.dataclass(frozen=True)
class Recipe(Fielded):
    """Optimiser, schedule, batch size, loss weights. Regulariser weights are those of eq. 4-6.

    ``distillation_weight`` w mixes the task's loss L and the distillation loss D from the original
    model as (1 - w) L + w D. ``lr`` is the peak of the schedule, whatever the optimiser.
    """

    optimizer: Annotated[str, CategoricalDistribution(("adamw", "sgd", "rmsprop"))] = "adamw"
    lr: Annotated[float, FloatDistribution(1e-5, 1e-1, log=True)] = 1e-3
    weight_decay: Annotated[float, FloatDistribution(1e-6, 1e-1, log=True)] = 5e-4
    schedule: Annotated[str, CategoricalDistribution(("one_cycle", "cosine", "constant"))] = "one_cycle"
    batch_size: Annotated[int, CategoricalDistribution((32, 64, 128, 256))] = 64
    distillation_weight: Annotated[float, FloatDistribution(0.0, 1.0)] = 0.5
    temperature: Annotated[float, FloatDistribution(1.0, 8.0)] = 4.0
    lambda_orthogonal: Annotated[float, FloatDistribution(1e-4, 10.0, log=True)] = 1.0
    lambda_hoyer: Annotated[float, FloatDistribution(1e-4, 10.0, log=True)] = 0.1


TRAINING_FIELDS = (
    "optimizer",
    "lr",
    "weight_decay",
    "schedule",
    "batch_size",
    "distillation_weight",
    "temperature",
)

__all__ = ["TRAINING_FIELDS", "Recipe"]
