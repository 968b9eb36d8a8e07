from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from petra_optuna.errors import TrainingDiverged
from petra_optuna.nn.descent import CLIP_NORM, descend, parameter_groups
from petra_optuna.nn.inputs import Inputs, forward


def _line(steps: int) -> Iterator[tuple[Inputs, Tensor]]:
    for index in range(steps):
        points = torch.randn(16, 1, generator=torch.Generator().manual_seed(index))
        yield (points,), 3 * points - 1


def _descend(model: nn.Module, scale: float = 1.0, lr: float = 0.1, epochs: int = 3) -> list[float]:
    def loss(inputs: Inputs, targets: Tensor) -> Tensor:
        return scale * (forward(model, inputs) - targets).square().mean()

    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return descend(
        model, lambda _: _line(20), loss, optimizer, schedule="cosine", epochs=epochs, steps_per_epoch=20
    )


def test_a_line_is_found_and_the_model_ends_in_eval_mode() -> None:
    model = nn.Linear(1, 1)
    losses = _descend(model)
    assert len(losses) == 3
    assert losses[-1] < 0.01 * losses[0]
    assert (model.weight.item(), model.bias.item()) == pytest.approx((3, -1), abs=0.05)
    assert not model.training


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_says_where(scale: float) -> None:
    with pytest.raises(TrainingDiverged, match="epoch 1, step 1"):
        _descend(nn.Linear(1, 1), scale)


def test_a_gradient_that_is_no_number_is_caught_though_the_loss_is_finite() -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss(inputs: Inputs, targets: Tensor) -> Tensor:
        return (forward(model, inputs) * 0.0).square().sum().sqrt()

    with pytest.raises(TrainingDiverged, match=r"gradient's norm is nan in epoch 1, step 1"):
        descend(model, lambda _: _line(1), loss, optimizer, schedule="constant", epochs=1, steps_per_epoch=1)


def test_one_step_moves_the_weights_by_at_most_the_clipped_norm() -> None:
    model = nn.Linear(1, 1)
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def loss(inputs: Inputs, targets: Tensor) -> Tensor:
        return 1e6 * forward(model, inputs).sum()

    descend(model, lambda _: _line(1), loss, optimizer, schedule="constant", epochs=1, steps_per_epoch=1)
    after = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert (after - before).norm().item() == pytest.approx(CLIP_NORM, rel=1e-3)


def test_only_matrices_and_kernels_decay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    model[2].bias.requires_grad_(False)
    decayed, kept = parameter_groups(model, 0.5)
    assert [decayed["weight_decay"], kept["weight_decay"]] == [0.5, 0.0]
    assert decayed["params"] == [model[0].weight, model[2].weight]
    assert kept["params"] == [model[0].bias, model[1].weight, model[1].bias]
