"""Model-level parameters (the paper's H_M): how training nodes train."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from optuna.distributions import CategoricalDistribution, FloatDistribution

from petra_optuna.pipeline.fields import Fielded, When

_OFF_ON = CategoricalDistribution((False, True))
_LAMBDA = FloatDistribution(1e-4, 10.0, log=True)


@dataclasses.dataclass(frozen=True)
class Recipe(Fielded):
    """Optimiser, schedule, batch size, loss weights.

    Attributes:
        optimizer: Name of the optimiser.
        lr: Learning rate at the peak of the schedule, whatever the optimiser.
        weight_decay: Factor of the weight decay.
        schedule: Course of the learning rate over the node's epochs.
        batch_size: Samples of a training step.
        distillation_weight: Weight w of ``(1 - w) L + w D``, task loss L and distillation loss D from the
            original model.
        temperature: Temperature of the distillation.
        label_smoothing: Share of a target's probability that is spread over all classes.
        clip_norm: Largest Euclidean norm of the gradients; longer ones are shortened to it.
        orthogonal: Whether factors are pulled towards orthonormal ones, with ``lambda_orthogonal`` (eq. 4).
        hoyer: Whether spectra are made sparse, with ``lambda_hoyer`` (eq. 5).
        lai: Whether residuals are scaled by the steepness of the model; ``lambda_lai`` is the bound.
        norm: Whether rows of weights are pulled towards length one, with ``lambda_norm``.
        sparsity: Whether weights shrink to which the loss is insensitive, with ``lambda_sparsity``.

    Example:
        >>> Recipe(optimizer="sgd", lr=0.05).optimizer
        'sgd'
    """

    optimizer: Annotated[str, CategoricalDistribution(("adamw", "sgd", "rmsprop"))] = "adamw"
    lr: Annotated[float, FloatDistribution(1e-5, 1e-1, log=True)] = 1e-3
    weight_decay: Annotated[float, FloatDistribution(1e-6, 1e-1, log=True)] = 5e-4
    schedule: Annotated[str, CategoricalDistribution(("one_cycle", "cosine", "constant"))] = "one_cycle"
    batch_size: Annotated[int, CategoricalDistribution((32, 64, 128, 256))] = 64
    distillation_weight: Annotated[float, FloatDistribution(0.0, 1.0)] = 0.5
    temperature: Annotated[float, FloatDistribution(1.0, 8.0)] = 4.0
    label_smoothing: Annotated[float, FloatDistribution(0.0, 0.2)] = 0.0
    clip_norm: Annotated[float, FloatDistribution(0.1, 10.0, log=True)] = 5.0
    orthogonal: Annotated[bool, _OFF_ON] = True
    lambda_orthogonal: Annotated[float, _LAMBDA, When("orthogonal", (True,))] = 1.0
    hoyer: Annotated[bool, _OFF_ON] = True
    lambda_hoyer: Annotated[float, _LAMBDA, When("hoyer", (True,))] = 0.1
    lai: Annotated[bool, _OFF_ON] = False
    lambda_lai: Annotated[float, _LAMBDA, When("lai", (True,))] = 0.5
    norm: Annotated[bool, _OFF_ON] = False
    lambda_norm: Annotated[float, _LAMBDA, When("norm", (True,))] = 1e-2
    sparsity: Annotated[bool, _OFF_ON] = False
    lambda_sparsity: Annotated[float, _LAMBDA, When("sparsity", (True,))] = 1e-3


TRAINING_FIELDS = (
    "optimizer",
    "lr",
    "weight_decay",
    "schedule",
    "batch_size",
    "distillation_weight",
    "temperature",
    "label_smoothing",
    "clip_norm",
)

REGULARIZERS = ("orthogonal", "hoyer", "lai", "norm", "sparsity")
"""Switches of the recipe; the weight of each is ``lambda_`` and its name."""

__all__ = ["REGULARIZERS", "TRAINING_FIELDS", "Recipe"]
