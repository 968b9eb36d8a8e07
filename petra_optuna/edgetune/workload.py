"""A workload: the data, metric and loss of a task, and the networks that may be trained on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from torch import nn

from petra_optuna.errors import OperationFailed, foreign_errors_as
from petra_optuna.nn.randomness import seeded
from petra_optuna.tasks import Task

Optimizer = Literal["sgd", "adamw"]

TRAINING_SPACE: Mapping[str, BaseDistribution] = MappingProxyType(
    {
        "batch_size": IntDistribution(32, 512, log=True),
        "learning_rate": FloatDistribution(1e-3, 1e-1, log=True),
    }
)
"""Parameters of training where a workload names no others (EDGETUNE, section 5.1: batch 32 to 512)."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """What is tuned.

    Attributes:
        name: Short name, shown and stored.
        task: Data, metric and loss. Its model is the untrained network of some parameters, which are those of
            the task's checks and example; trials train networks of their own.
        build: Makes the untrained network of the model parameters that are given by name.
        model_space: Parameters of the model by name. They alone decide the architecture.
        training_space: Parameters of training by name: ``batch_size`` and ``learning_rate``.
        optimizer: ``sgd`` (Nesterov momentum 0.9) or ``adamw``.

    Example:
        >>> from optuna.distributions import IntDistribution
        >>> from torch import nn
        >>> def build(width):
        ...     return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 4))
        >>> wide = Workload("wide", task, build, {"width": IntDistribution(8, 64)})
        >>> wide.network({"width": 16}, seed=0)[1]
        Linear(in_features=64, out_features=16, bias=True)
    """

    name: str
    task: Task
    build: Callable[..., nn.Module]
    model_space: Mapping[str, BaseDistribution]
    training_space: Mapping[str, BaseDistribution] = dataclasses.field(default_factory=lambda: TRAINING_SPACE)
    optimizer: Optimizer = "sgd"

    def network(self, parameters: Mapping[str, Any], seed: int) -> nn.Module:
        """The untrained network of these model parameters; the seed decides its weights.

        Raises:
            OperationFailed: When ``build`` fails or returns no network.
        """
        chosen = {name: parameters[name] for name in self.model_space}
        with seeded(seed), foreign_errors_as(OperationFailed, f"build of workload {self.name!r}"):
            network = self.build(**chosen)
        if not isinstance(network, nn.Module):
            raise OperationFailed(
                f"build of workload {self.name!r} must return a network, got {type(network).__name__}"
            )
        return network
