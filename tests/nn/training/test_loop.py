from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from petra_optuna.errors import TrainingDiverged
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.training.loop import (
    DIVERGENCE_FACTOR,
    WARM_UP_SHARE,
    parameter_groups,
    run_epochs,
    schedule_factor,
)

STEPS = [step / 1000 for step in range(1001)]


def _line(steps: int) -> Iterator[tuple[Inputs, Tensor]]:
    for index in range(steps):
        points = torch.randn(16, 1, generator=torch.Generator().manual_seed(index))
        yield (points,), 3 * points - 1


def _descend(model: nn.Module, scale: float = 1.0, lr: float = 0.1, epochs: int = 3) -> list[float]:
    def loss(inputs: Inputs, targets: Tensor) -> Tensor:
        return scale * (forward(model, inputs) - targets).square().mean()

    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return run_epochs(
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
        run_epochs(
            model, lambda _: _line(1), loss, optimizer, schedule="constant", epochs=1, steps_per_epoch=1
        )


def _one_step(clip_norm: float) -> float:
    """How far one step of length 1 along an enormous gradient moves the weights."""
    model = nn.Linear(1, 1)
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    def loss(inputs: Inputs, targets: Tensor) -> Tensor:
        return 1e6 * forward(model, inputs).mean()

    run_epochs(
        model,
        lambda _: _line(1),
        loss,
        torch.optim.SGD(model.parameters(), lr=1.0),
        schedule="constant",
        epochs=1,
        steps_per_epoch=1,
        clip_norm=clip_norm,
    )
    after = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    return (after - before).norm().item()


@pytest.mark.parametrize("clip_norm", [0.1, 7.0])
def test_one_step_moves_the_weights_by_at_most_the_clipped_norm(clip_norm: float) -> None:
    assert _one_step(clip_norm) == pytest.approx(clip_norm, rel=1e-3)


def _descend_along(epochs: list[list[float]]) -> list[float]:
    """Steps whose losses have these values, whatever the model does."""
    model = nn.Linear(1, 1)
    given = iter([value for epoch in epochs for value in epoch])

    def loss(inputs: Inputs, targets: Tensor) -> Tensor:
        value = forward(model, inputs).mean()
        return value - value.detach() + next(given)

    return run_epochs(
        model,
        lambda epoch: _line(len(epochs[epoch])),
        loss,
        torch.optim.SGD(model.parameters(), lr=1e-3),
        schedule="constant",
        epochs=len(epochs),
        steps_per_epoch=len(epochs[0]),
    )


@pytest.mark.parametrize(
    "epochs",
    [
        [[1e-3, 1.0], [9.0, 9.0]],  # a model that was almost perfect may lose a little
        [[2.0], [19.0]],  # below the factor
        [[2.0, 60.0], [25.0, 25.0], [19.0, 19.0]],  # on its way back
        [[-5.0], [-50.0]],
    ],
)
def test_a_loss_that_rises_for_a_while_is_no_divergence(epochs: list[list[float]]) -> None:
    assert _descend_along(epochs) == pytest.approx([sum(losses) / len(losses) for losses in epochs])


@pytest.mark.parametrize(
    ("epochs", "last"),
    [
        ([[2.0], [21.0]], 2),
        ([[2.0, 40.1]], 1),
        ([[2.0], [30.0], [25.0]], 2),
        ([[0.1], [9.0], [11.0], [1.0]], 3),
        ([[-3.0], [11.0]], 2),
    ],
)
def test_a_loss_ten_times_the_first_and_not_falling_is_divergence(
    epochs: list[list[float]], last: int
) -> None:
    assert DIVERGENCE_FACTOR == 10
    with pytest.raises(TrainingDiverged, match=f"mean loss of epoch {last} is"):
        _descend_along(epochs)


def test_a_step_too_large_diverges_though_every_loss_is_finite() -> None:
    model = nn.Linear(1, 1)

    def loss(inputs: Inputs, targets: Tensor) -> Tensor:
        return (forward(model, inputs) - targets).square().mean()

    optimizer = torch.optim.SGD(model.parameters(), lr=20.0)
    with pytest.raises(TrainingDiverged, match="a lower learning rate may help"):
        run_epochs(
            model, lambda _: _line(20), loss, optimizer, schedule="constant", epochs=1, steps_per_epoch=20
        )


def test_only_matrices_and_kernels_decay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    model[2].bias.requires_grad_(False)
    decayed, kept = parameter_groups(model, 0.5)
    assert [decayed["weight_decay"], kept["weight_decay"]] == [0.5, 0.0]
    assert decayed["params"] == [model[0].weight, model[2].weight]
    assert kept["params"] == [model[0].bias, model[1].weight, model[1].bias]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_the_peak_is_one_and_no_step_is_negative(schedule: str) -> None:
    factors = [schedule_factor(schedule, step) for step in STEPS]
    assert max(factors) == pytest.approx(1.0)
    assert min(factors) >= 0.0


def test_cosine_falls_from_one_to_zero() -> None:
    factors = [schedule_factor("cosine", step) for step in STEPS]
    assert factors == sorted(factors, reverse=True)
    assert (factors[0], factors[500], factors[-1]) == pytest.approx((1.0, 0.5, 0.0))


def test_one_cycle_rises_for_three_tenths_then_falls_to_zero() -> None:
    factors = [schedule_factor("one_cycle", step) for step in STEPS]
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[:301] == sorted(factors[:301])
    assert factors[300:] == sorted(factors[300:], reverse=True)
    assert (factors[300], factors[-1]) == pytest.approx((1.0, 0.0))


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(
        ValueError, match="`schedule` must be one of constant, cosine, one_cycle, got 'linear'"
    ):
        schedule_factor("linear", 0.5)


TOTAL = 40


def _rates(make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]) -> list[float]:
    """What a scheduler of torch sets over ``TOTAL`` steps from a peak of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(TOTAL):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_is_that_of_torch() -> None:
    expected = _rates(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, TOTAL))
    assert [schedule_factor("cosine", step / TOTAL) for step in range(TOTAL)] == pytest.approx(expected)


def test_one_cycle_is_that_of_torch() -> None:
    """Torch's peak is a step before its share of the steps, and its end is its last step: both are met."""
    peak = (WARM_UP_SHARE * TOTAL + 1) / (TOTAL + 1)

    def make(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=1.0,
            total_steps=TOTAL + 1,
            pct_start=peak,
            final_div_factor=1e12,
            cycle_momentum=False,
        )

    assert [schedule_factor("one_cycle", step / TOTAL) for step in range(TOTAL)] == pytest.approx(
        _rates(make)
    )
