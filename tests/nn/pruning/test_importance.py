from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.func import functional_call

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.pruning.importance import (
    CRITERIA,
    Criterion,
    WeightScores,
    batch_norm_scores,
    channel_scores,
    hessian_scores,
    lamp_scores,
    lamp_shares,
    magnitude_scores,
    random_scores,
    taylor_scores,
    weight_scores,
)
from petra_optuna.nn.pruning.tracing import trace


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
    _, coupled = trace(model, (torch.randn(2, 3, 2, 2),))
    return {group[0].dep.layer: group for group in coupled}


@pytest.fixture
def model() -> Joined:
    torch.manual_seed(0)
    made = Joined().eval()
    nn.init.uniform_(made.norm.weight, 0.5, 2.0)
    return made


def owned(model: Joined, scores: WeightScores) -> tuple[Tensor, Tensor]:
    """By hand: sums over the weights that a channel owns, layer by layer, then the mean over layers."""
    tail = scores[model.tail.weight].view(2, 9, 4).sum((0, 2))
    a, b, c = (scores[conv.weight].sum((1, 2, 3)) for conv in (model.a, model.b, model.c))
    summed = (a + b + scores[model.norm.weight] + tail[:4]) / 4
    lone = (c + tail[4:]) / 2
    return by_definition(summed), by_definition(lone)


def by_definition(values: Tensor) -> Tensor:
    """Each value over the sum of those that are not smaller."""
    return torch.stack([value / values[values >= value].sum() for value in values])


@pytest.mark.parametrize("power", [1, 2])
def test_magnitudes_are_aggregated_over_coupled_layers(model: Joined, power: int) -> None:
    scores = magnitude_scores(model, power)
    by_hand = {parameter: parameter.detach().abs() ** power for parameter in model.parameters()}
    summed, lone = owned(model, by_hand)
    by_layer = groups(model)
    coupled = channel_scores(by_layer.get(model.a, by_layer.get(model.b)), scores)
    torch.testing.assert_close(coupled, summed)
    torch.testing.assert_close(channel_scores(by_layer[model.c], scores), lone)


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


def test_the_hessians_diagonal_is_that_of_the_exact_hessian() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    batches = [torch.randn(8, 3).double() for _ in range(2)]
    parameters = dict(model.named_parameters())

    def loss(net: nn.Module, batch: Tensor) -> Tensor:
        return net(batch).square().sum() + net(batch).logsumexp(1).sum()

    def of_vector(vector: Tensor) -> Tensor:
        parts = vector.split([parameter.numel() for parameter in parameters.values()])
        named = {
            name: part.view_as(value) for (name, value), part in zip(parameters.items(), parts, strict=True)
        }
        outputs = [functional_call(model, named, (batch,)) for batch in batches]
        return sum(out.square().sum() + out.logsumexp(1).sum() for out in outputs) / len(outputs)  # type: ignore[return-value]

    vector = nn.utils.parameters_to_vector(parameters.values()).detach()
    exact = torch.autograd.functional.hessian(of_vector, vector).diagonal()
    expected = exact.clamp(min=0) * vector.square() / 2
    scores = hessian_scores(model, batches, loss, seed=0, probes=300)
    estimated = torch.cat([scores[parameter].flatten() for parameter in parameters.values()])
    assert float((estimated - expected).norm()) < 0.1 * float(expected.norm())


def test_a_diagonal_hessian_is_exact_with_one_probe_and_negative_curvature_counts_as_none() -> None:
    layer = nn.Linear(4, 1, bias=False)
    curvature = torch.tensor([[2.0, 0.5, -3.0, 0.0]])
    scores = hessian_scores(
        layer, [1.0, 3.0], lambda net, scale: (scale * curvature * net.weight**2).sum() / 2, seed=1, probes=1
    )
    expected = 2 * curvature.clamp(min=0) * layer.weight.detach().square() / 2
    torch.testing.assert_close(scores[layer.weight], expected)


@pytest.mark.parametrize("activation", [nn.Hardsigmoid(), nn.Hardswish(), nn.Hardsigmoid(inplace=True)])
def test_the_hessian_of_functions_that_torch_differentiates_once(activation: nn.Module) -> None:
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.5)
    loss: Callable[[nn.Module, Tensor], Tensor] = lambda net, x: activation(net(x)).square().sum()  # noqa: E731
    x = torch.tensor([[1.0]])
    step = 1e-2
    values = []
    for shift in (-step, 0.0, step):
        with torch.no_grad():
            layer.weight.fill_(0.5 + shift)
            values.append(float(loss(layer, x).double()))
    with torch.no_grad():
        layer.weight.fill_(0.5)
    second = (values[0] - 2 * values[1] + values[2]) / step**2
    estimated = float(hessian_scores(layer, [x], loss, seed=0)[layer.weight])
    assert estimated == pytest.approx(second * 0.25 / 2, rel=0.02)


def test_the_hessian_of_attention_exists_and_of_a_summed_embedding_does_not() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    scores = hessian_scores(
        attention,
        [torch.randn(2, 5, 8)],
        lambda net, x: net(x, x, x, need_weights=False)[0].square().sum(),
        seed=0,
    )
    assert float(scores[attention.in_proj_weight].sum()) > 0
    bag = nn.EmbeddingBag(5, 3)
    with pytest.raises(OperationFailed, match="cannot be differentiated twice"):
        hessian_scores(bag, [torch.tensor([[0, 1]])], lambda net, x: net(x).square().sum(), seed=0)


def test_the_hessian_of_a_linear_loss_is_zero() -> None:
    layer = nn.Linear(3, 2)
    scores = hessian_scores(layer, [torch.randn(4, 3)], lambda net, x: net(x).sum(), seed=0)
    assert all(not score.any() for score in scores.values())


def test_lamp_by_hand_and_equal_weights_alike() -> None:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0, -1.0], [3.0, -2.0]]))
        layer.bias.zero_()
    scores = lamp_scores(layer)
    expected = torch.tensor([[4 / 17, 1 / 18], [1.0, 4 / 17]])
    torch.testing.assert_close(scores[layer.weight], expected)
    assert not scores[layer.bias].any()


@pytest.mark.parametrize("values", [torch.rand(50), torch.randint(4, (50,)).float(), torch.ones(3)])
def test_lamp_shares_are_their_definition(values: Tensor) -> None:
    torch.testing.assert_close(lamp_shares(values), by_definition(values).nan_to_num())


def test_batch_norm_scores_are_the_sizes_of_gamma_where_there_is_one(model: Joined) -> None:
    with torch.no_grad():
        model.norm.weight.copy_(torch.tensor([0.5, -2.0, 1.0, -0.1]))
    scores = batch_norm_scores(model)
    assert set(scores) == {model.norm.weight}
    by_layer = groups(model)
    coupled = channel_scores(by_layer.get(model.a, by_layer.get(model.b)), scores)
    torch.testing.assert_close(coupled, by_definition(torch.tensor([0.5, 2.0, 1.0, 0.1])))
    assert channel_scores(by_layer[model.c], scores) is None
    assert batch_norm_scores(nn.BatchNorm2d(4, affine=False)) == {}


def test_a_norm_of_flattened_channels_scores_each_channel_by_all_its_places() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Flatten(), nn.BatchNorm1d(20), nn.Linear(20, 2)).eval()
    nn.init.normal_(net[2].weight)
    scores = batch_norm_scores(net)
    expected = by_definition(net[2].weight.detach().abs().view(5, 4).sum(1))
    torch.testing.assert_close(channel_scores(groups(net)[net[0]], scores), expected)


def test_random_ranks_are_alike_in_every_group_and_follow_the_seed(model: Joined) -> None:
    by_layer = groups(model)
    group = by_layer[model.c]
    ranks = torch.arange(1.0, 6.0)
    first = channel_scores(group, random_scores(model, 0))
    assert first is not None
    torch.testing.assert_close(first.sort().values, by_definition(ranks))
    assert torch.equal(first, channel_scores(group, random_scores(model, 0)))  # type: ignore[arg-type]
    orders = {tuple(channel_scores(group, random_scores(model, seed)).tolist()) for seed in range(20)}  # type: ignore[union-attr]
    assert len(orders) > 10


EXPECTED: dict[Criterion, Callable[[nn.Module, list[Tensor], Any], WeightScores]] = {
    "magnitude_l1": lambda net, batches, loss: magnitude_scores(net, 1),
    "magnitude_l2": lambda net, batches, loss: magnitude_scores(net, 2),
    "taylor": taylor_scores,
    "hessian": lambda net, batches, loss: hessian_scores(net, batches, loss, seed=3),
    "batch_norm": lambda net, batches, loss: batch_norm_scores(net),
    "lamp": lambda net, batches, loss: lamp_scores(net),
    "random": lambda net, batches, loss: random_scores(net, 3),
}


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_criterion_by_name_is_its_function_and_only_two_read_data(
    model: Joined, criterion: Criterion
) -> None:
    read = []

    def batches() -> Iterator[Tensor]:
        for seed in range(2):
            read.append(seed)
            yield torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(seed))

    def loss(net: nn.Module, batch: Tensor) -> Tensor:
        return net(batch).square().mean()

    state, random_state = [value.clone() for value in model.parameters()], torch.get_rng_state()
    chosen = weight_scores(model, criterion, batches=batches(), loss=loss, seed=3)
    assert read == ([0, 1] if criterion in ("taylor", "hessian") else [])
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(*pair) for pair in zip(state, model.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    expected = EXPECTED[criterion](model, list(batches()), loss)
    assert chosen.keys() == expected.keys()
    assert all(torch.equal(chosen[parameter], expected[parameter]) for parameter in expected)
    assert all(chosen[parameter].shape == parameter.shape for parameter in chosen)


@pytest.mark.parametrize("criterion", ["taylor", "hessian"])
def test_criteria_of_the_loss_without_batches_are_refused(model: Joined, criterion: Criterion) -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        weight_scores(model, criterion, batches=[], loss=lambda net, images: net(images).sum(), seed=0)


def test_an_unknown_criterion_is_refused(model: Joined) -> None:
    with pytest.raises(ValueError, match="`criterion` must be one of magnitude_l1"):
        weight_scores(model, "weight", batches=[], loss=lambda net, images: net(images).sum(), seed=0)  # type: ignore[arg-type]
