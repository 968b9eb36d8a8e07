from __future__ import annotations

import torch
from torch import nn

from petra_optuna.nn.batch_norm import reestimate_batch_norm


def batches(count: int = 3, size: int = 16) -> list[tuple[torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [(torch.randn(size, 6, generator=generator) * 3 + 1,) for _ in range(count)]


def test_statistics_equal_direct_averages() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)).eval()
    assert reestimate_batch_norm(model, batches()) == 1
    features = [model[0](inputs) for (inputs,) in batches()]
    means = torch.stack([part.mean(0) for part in features]).mean(0)
    variances = torch.stack([part.var(0) for part in features]).mean(0)
    torch.testing.assert_close(model[1].running_mean, means)
    torch.testing.assert_close(model[1].running_var, variances)
    assert model[1].momentum == 0.1
    assert not any(module.training for module in model.modules())


def test_old_statistics_are_forgotten() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)).eval()
    model[1].running_mean.fill_(1e6)
    reestimate_batch_norm(model, batches())
    assert model[1].running_mean.abs().max() < 100


def test_deeper_layers_see_batch_statistics_and_dropout_stays_off() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.9), nn.BatchNorm1d(5)).eval()
    assert reestimate_batch_norm(model, batches(1)) == 2
    torch.testing.assert_close(model[3].running_mean, torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(model[3].running_var, torch.full((5,), 16 / 15), atol=1e-3, rtol=0)


def test_without_layers_or_batches_nothing_happens() -> None:
    assert reestimate_batch_norm(nn.Linear(6, 5).eval(), batches()) == 0
    model = nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False)).eval()
    assert reestimate_batch_norm(model, batches()) == 0
    model = nn.Sequential(nn.BatchNorm1d(6)).eval()
    model[0].running_mean.fill_(7.0)
    assert reestimate_batch_norm(model, []) == 0
    assert model[0].running_mean.tolist() == [7.0] * 6
