from __future__ import annotations

import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn

from petra_optuna.nn.importance import channel_scores, magnitude_scores, taylor_scores
from petra_optuna.nn.tracing import trace


class Joined(nn.Module):
    """A residual sum, a concatenation and flattening, each of which couples or splits channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.b = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.c = nn.Conv2d(3, 5, 1)
        self.tail = nn.Linear(9 * 4, 2)

    def forward(self, images: Tensor) -> Tensor:
        summed = self.a(images) + self.norm(self.b(images))
        return self.tail(torch.cat([summed, self.c(images)], 1).flatten(1))


def groups(model: nn.Module) -> dict[nn.Module, tp.dependency.Group]:
    _, found = trace(model, (torch.randn(2, 3, 2, 2),))
    return {group[0].dep.layer: group for group in found}


@pytest.fixture
def model() -> Joined:
    torch.manual_seed(0)
    made = Joined().eval()
    nn.init.uniform_(made.norm.weight, 0.5, 2.0)
    return made


def owned(model: Joined, scores: dict[nn.Parameter, Tensor]) -> tuple[Tensor, Tensor]:
    """By hand: sums over the weights that a channel owns, layer by layer, then the mean over layers."""
    tail = scores[model.tail.weight].view(2, 9, 4).sum((0, 2))
    a, b, c = (scores[conv.weight].sum((1, 2, 3)) for conv in (model.a, model.b, model.c))
    summed = (a + b + scores[model.norm.weight] + tail[:4]) / 4
    lone = (c + tail[4:]) / 2
    return summed / summed.mean(), lone / lone.mean()


@pytest.mark.parametrize("power", [1, 2])
def test_magnitudes_are_aggregated_over_coupled_layers(model: Joined, power: int) -> None:
    scores = magnitude_scores(model, power)
    by_hand = {parameter: parameter.detach().abs() ** power for parameter in model.parameters()}
    summed, lone = owned(model, by_hand)
    found = groups(model)
    coupled = channel_scores(found.get(model.a, found.get(model.b)), scores)
    torch.testing.assert_close(coupled, summed)
    torch.testing.assert_close(channel_scores(found[model.c], scores), lone)


def test_taylor_is_the_square_of_weight_times_gradient_averaged_over_batches(model: Joined) -> None:
    batches = [torch.randn(4, 3, 2, 2) for _ in range(3)]
    scores = taylor_scores(model, batches, lambda net, images: net(images).square().mean())
    expected = {parameter: torch.zeros_like(parameter) for parameter in model.parameters()}
    for images in batches:
        model.zero_grad()
        model(images).square().mean().backward()
        for parameter in expected:
            assert parameter.grad is not None
            expected[parameter] += (parameter * parameter.grad).square().detach() / 3
    for parameter, value in expected.items():
        torch.testing.assert_close(scores[parameter], value)
    torch.testing.assert_close(channel_scores(groups(model)[model.c], scores), owned(model, expected)[1])


def test_scoring_leaves_weights_and_gradients_alone(model: Joined) -> None:
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    scores = taylor_scores(model, [torch.randn(4, 3, 2, 2)], lambda net, images: net(images).sum())
    for group in groups(model).values():
        channel_scores(group, scores)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_taylor_without_batches_is_refused(model: Joined) -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        taylor_scores(model, [], lambda net, images: net(images).sum())
