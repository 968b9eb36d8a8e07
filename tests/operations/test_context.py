from __future__ import annotations

import dataclasses

import torch
from torch.utils.data import TensorDataset

from petra_optuna.nn.inputs import tensors
from petra_optuna.operations import Context
from petra_optuna.pipeline import Recipe
from petra_optuna.tasks import Split, Task


def test_calibration_is_a_fixed_sample_of_every_class_though_the_data_is_sorted(tiny_task: Task) -> None:
    targets = torch.arange(10).repeat_interleave(40)
    calibration = Split(TensorDataset(torch.arange(400.0), targets))
    context = Context(dataclasses.replace(tiny_task, calibration=calibration), Recipe(), seed=0, epochs=0)

    def read(limit: int) -> tuple[torch.Tensor, torch.Tensor]:
        batches = list(context.calibration_batches(limit, batch_size=32))
        assert max(len(part) for _, part in batches) == 32
        return torch.cat([tensors(inputs)[0] for inputs, _ in batches]), torch.cat(
            [part for _, part in batches]
        )

    samples, classes = read(100)
    assert len(samples) == len(set(samples.tolist())) == 100
    assert classes.bincount().tolist() == [10] * 10
    assert torch.equal(read(100)[0], samples)
    assert torch.equal(read(10_000)[0].sort().values, torch.arange(400.0))
