from __future__ import annotations

import torch
from optuna.distributions import IntDistribution
from torch import nn

from petra_optuna.edgetune import TRAINING_SPACE, Workload
from petra_optuna.tasks import Task


def _linear(width: int) -> nn.Module:
    return nn.Linear(4, width)


def test_the_parameters_of_the_model_decide_the_shapes_and_the_seed_the_weights(tiny_task: Task) -> None:
    workload = Workload("mine", tiny_task, _linear, {"width": IntDistribution(1, 8)})
    first, again, other = (workload.network({"width": 3, "batch_size": 32}, seed) for seed in (0, 0, 1))
    assert isinstance(first, nn.Linear)
    assert first.weight.shape == (3, 4)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_the_training_space_is_edgetunes_where_none_is_given(tiny_task: Task) -> None:
    assert Workload("mine", tiny_task, _linear, {}).training_space == TRAINING_SPACE
