from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn

from petra_optuna.errors import OperationFailed
from petra_optuna.models import ResidualNet
from petra_optuna.nn.counting import count_parameters
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.low_rank import LowRankPair, decompose
from petra_optuna.nn.normalize import Normalize
from petra_optuna.nn.pruning.importance import magnitude_scores
from petra_optuna.nn.pruning.prune import PruningResult, prune_channels


class Concatenating(nn.Module):
    """Raw input and several branches joined, twice, with a sum with the raw input before."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Conv2d(3, 3, 1)
        self.a = nn.Conv2d(3, 16, 3, padding=1)
        self.b = nn.Conv2d(3, 24, 3, padding=1)
        self.c = nn.Conv2d(43, 32, 3, padding=1)
        self.head = nn.Linear(75, 5)

    def forward(self, images: Tensor) -> Tensor:
        images = images + self.shift(images)
        joined = torch.cat([images, self.a(images).relu(), self.b(images).relu()], 1)
        joined = torch.cat([joined, self.c(joined).relu()], 1)
        return self.head(joined.mean((2, 3)))


class Branches(nn.Module):
    """Two inputs meet in one vector, flattened, plain and pooled; a joined image is flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(3, 16, 1)
        self.dense = nn.Linear(5, 24)
        self.mix = nn.Linear(16 * 64 + 24 + 16, 32)
        self.c = nn.Conv2d(3, 16, 3)
        self.head = nn.Linear(32 + (16 + 16) * 36, 3)

    def forward(self, images: Tensor, numbers: Tensor) -> Tensor:
        pooled = self.b(images).relu()
        vector = torch.cat(
            [self.a(images).flatten(1), self.dense(numbers).relu(), pooled.mean((2, 3))], dim=1
        )
        joined = torch.cat((self.c(images), pooled[:, :, 1:7, 1:7]), dim=-3)
        return self.head(torch.concat([self.mix(vector).relu(), joined.relu().flatten(1)], -1))


class Grouped(nn.Module):
    """A grouped and a depthwise convolution between dense ones."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 32, 3)
        self.grouped = nn.Conv2d(32, 64, 3, groups=4, bias=False)
        self.norm = nn.BatchNorm2d(64)
        self.depthwise = nn.Conv2d(64, 64, 3, groups=64)
        self.head = nn.Conv2d(64, 5, 2)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.norm(self.grouped(self.a(images).relu())).relu()
        return self.head(self.depthwise(hidden).relu()).flatten(1)


class Tokens(nn.Module):
    """A class token before a series of vectors, positions, and an MLP over channels with a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 6, 16))
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 64), nn.Linear(64, 16)
        self.head = nn.Linear(6 * 16, 3)

    def forward(self, series: Tensor, mask: Tensor | None = None, scale: float = 2.0) -> Tensor:
        tokens = torch.cat([self.token.expand(len(series), -1, -1), self.first(series)], 1) + self.places
        tokens = tokens + self.down(torch.relu(self.up(self.norm(tokens)))) * scale
        return self.head(tokens.flatten(1))


class Series(nn.Module):
    """Conv1d branches of different widths, joined, and a flattened series."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(4, 16, 3, padding=1), nn.Conv1d(4, 24, 5, padding=2)
        self.norm, self.c = nn.BatchNorm1d(40), nn.Conv1d(40, 32, 1)
        self.head = nn.Linear(32 * 10, 3)

    def forward(self, series: Tensor) -> Tensor:
        joined = self.norm(torch.cat([self.a(series), self.b(series)], dim=1)).relu()
        return self.head(self.c(joined).relu().flatten(1))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 16)
        self.dense = nn.Linear(4, 32)
        self.mix = nn.Linear(48, 40)
        self.head = nn.Linear(40, 3)

    def forward(self, tokens: Tensor, numbers: Tensor) -> Tensor:
        joined = torch.cat([self.words(tokens).mean(1), self.dense(numbers).relu()], 1)
        return torch.softmax(self.head(self.mix(joined).relu()), -1)


class Flattening(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1)
        self.hidden = nn.Linear(32 * 64, 64)
        self.head = nn.Linear(64, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.hidden(self.conv(images).relu().flatten(1)).relu())


def factored() -> nn.Module:
    model = ResidualNet(3, 5, widths=(32, 64), blocks=1)
    for block in model.stages:
        block.conv1 = decompose(block.conv1, 24)
        block.conv2 = decompose(block.conv2, 16)
    return model


CONV2D: Inputs = (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)
MODELS: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "residual": (lambda: ResidualNet(3, 5, widths=(32, 64), blocks=1), CONV2D),
    "normalised": (
        lambda: nn.Sequential(Normalize((0.5,) * 3, (0.2,) * 3), ResidualNet(3, 5, widths=(32, 64))),
        CONV2D,
    ),
    "concatenating": (Concatenating, CONV2D),
    "branches": (
        Branches,
        (*CONV2D, torch.randn(2, 5, generator=torch.Generator().manual_seed(0))),  # type: ignore[misc]
    ),
    "grouped": (Grouped, CONV2D),
    "flattening": (Flattening, CONV2D),
    "low rank": (factored, CONV2D),
    "tokens": (Tokens, (torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0)),)),
    "series": (Series, (torch.randn(4, 4, 10, generator=torch.Generator().manual_seed(0)),)),
    "two inputs": (
        TwoInputs,
        {"tokens": torch.arange(12).reshape(2, 6) % 11, "numbers": torch.linspace(0, 1, 8).reshape(2, 4)},
    ),
}


def made(case: str) -> tuple[nn.Module, Inputs]:
    torch.manual_seed(1)
    factory, inputs = MODELS[case]
    model = factory().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
    return model, inputs


def pruned(model: nn.Module, inputs: Inputs, ratio: float, scope: str = "local") -> PruningResult:
    return prune_channels(model, inputs, lambda net: magnitude_scores(net, 2), ratio, scope)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("scope", ["local", "global"])
def test_share_is_met_inputs_and_outputs_stay_and_training_works(case: str, scope: str) -> None:
    model, inputs = made(case)
    before, weights = forward(model, inputs).shape, count_parameters(model)
    result = pruned(model, inputs, 0.5, scope)
    total = sum(width for width, _ in result.widths.values())
    kept = sum(width for _, width in result.widths.values())
    assert abs(kept / total - 0.5) <= 0.1
    assert count_parameters(model) < weights
    outputs = forward(model, inputs)
    assert outputs.shape == before
    outputs.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.7, 0.9])
@pytest.mark.parametrize("scope", ["local", "global"])
def test_widths_stay_round_and_no_layer_vanishes(case: str, ratio: float, scope: str) -> None:
    model, inputs = made(case)
    result = pruned(model, inputs, ratio, scope)
    for before, after in result.widths.values():
        assert 8 <= after <= before
        assert after % 8 == 0 or after == before


@pytest.mark.parametrize("case", MODELS)
def test_pruning_equals_silencing_the_removed_channels(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every consumer's weights of a channel are zero, removing it changes no output.

    A wrong index anywhere (concatenation, flattening, groups) removes a channel that is still read.
    """
    model, inputs = made(case)
    silenced = copy.deepcopy(model)
    removed = record_consumers(model, monkeypatch)
    pruned(model, inputs, 0.5)
    assert removed
    with torch.no_grad():
        for name, channels in removed:
            silence(silenced.get_submodule(name), channels)
        for norm in (*model.modules(), *silenced.modules()):
            if isinstance(norm, nn.LayerNorm):
                norm.forward = lambda values: values  # a norm over fewer channels is another norm
    torch.testing.assert_close(forward(model, inputs), forward(silenced, inputs), rtol=1e-4, atol=1e-5)


def silence(layer: nn.Module, channels: list[int]) -> None:
    """Make a layer ignore some of its input channels."""
    groups = getattr(layer, "groups", 1)
    rows, columns = layer.weight.shape[0] // groups, layer.weight.shape[1]
    for channel in channels:
        group, column = divmod(channel, columns)
        layer.weight[group * rows : (group + 1) * rows, column] = 0


def record_consumers(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[int]]]:
    """Input channels, as numbered before, that torch-pruning takes from each layer, as it goes."""
    names = {module: name for name, module in model.named_modules()}
    alive = {
        module: list(range(module.weight.shape[1] * getattr(module, "groups", 1)))
        for module in names
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear)
    }
    removed: list[tuple[str, list[int]]] = []
    original = tp.dependency.Group.prune

    def prune(group: tp.dependency.Group, idxs: list[int] | None = None, record_history: bool = True) -> None:
        for dependency, channels in group if idxs is None else ():
            layer = dependency.layer
            if layer in alive and group._DG.is_out_channel_pruning_fn(dependency.handler) is False:
                removed.append((names[layer], [alive[layer][channel] for channel in channels]))
                alive[layer] = [
                    place for index, place in enumerate(alive[layer]) if index not in set(channels)
                ]
        original(group, idxs, record_history)

    monkeypatch.setattr(tp.dependency.Group, "prune", prune)
    return removed


def test_the_least_important_channels_leave() -> None:
    model, inputs = made("flattening")
    important = [1, 5, 6, 9, 12, 20, 30, 31]
    with torch.no_grad():
        for layer in (model.conv.weight, model.hidden.weight.view(64, 32, 64).transpose(0, 1)):
            weak = torch.ones(32, dtype=torch.bool)
            weak[important] = False
            layer[weak] *= 0.01
    kept = model.conv.weight[important].clone()
    pruned(model, inputs, 0.75)
    assert torch.equal(model.conv.weight, kept)


def test_global_ranking_takes_more_from_the_weaker_layer_and_local_does_not() -> None:
    def weaker() -> nn.Sequential:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
        ).eval()
        with torch.no_grad():
            model[2].weight[:48] *= 1e-3
            model[4].weight[:, :48] *= 1e-3
        return model

    inputs = (torch.randn(2, 6),)
    widths = pruned(weaker(), inputs, 0.4, "global").widths
    assert widths["2"][1] < widths["0"][1]
    assert pruned(weaker(), inputs, 0.5, "local").widths == {"0": (64, 32), "2": (64, 32)}


def test_a_global_ranking_cannot_remove_a_whole_layer() -> None:
    model, inputs = made("flattening")
    with torch.no_grad():
        model.hidden.weight.mul_(1e-6)
        model.head.weight.mul_(1e-6)
    widths = pruned(model, inputs, 0.9, "global").widths
    assert widths["hidden"][1] >= 8
    assert widths["conv"][1] >= 8


@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_ranks_of_pairs_are_pruned_and_stay_pairs(ratio: float) -> None:
    model, inputs = made("low rank")
    ranks = {name: module.rank for name, module in model.named_modules() if isinstance(module, LowRankPair)}
    pruned(model, inputs, ratio)
    after = {name: module.rank for name, module in model.named_modules() if isinstance(module, LowRankPair)}
    assert ranks.keys() == after.keys()
    assert any(after[name] < rank for name, rank in ranks.items())


def test_layers_that_share_a_weight_are_left_out() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 16)
            self.b.weight = self.a.weight
            self.free, self.head = nn.Linear(16, 32), nn.Linear(32, 3)

        def forward(self, values: Tensor) -> Tensor:
            return self.head(self.free(self.b(self.a(values).relu())).relu())

    model = Tied().eval()
    result = pruned(model, (torch.randn(2, 16),), 0.5)
    assert result.widths == {"free": (32, 16)}
    assert "shares its weight" in result.left_out["a"]
    assert model.a.weight is model.b.weight


def test_frozen_weights_stay_frozen_and_gradients_of_others_stay_on() -> None:
    model, inputs = made("flattening")
    model.conv.weight.requires_grad_(False)
    pruned(model, inputs, 0.5)
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert frozen == ["conv.weight"]


def test_pruning_is_the_same_each_time() -> None:
    first, inputs = made("residual")
    second, _ = made("residual")
    pruned(first, inputs, 0.5, "global")
    pruned(second, inputs, 0.5, "global")
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_nothing_to_prune_is_an_error_and_only_an_output_is_not() -> None:
    with pytest.raises(OperationFailed, match="no Linear or convolution"):
        pruned(nn.Sequential(nn.ReLU()).eval(), (torch.randn(2, 4, requires_grad=True),), 0.5)
    result = pruned(nn.Sequential(nn.Linear(4, 3)).eval(), (torch.randn(2, 4),), 0.5)
    assert result.widths == {}
    assert "output" in result.left_out["0"]


def test_a_model_whose_forward_fixes_a_width_fails_with_the_reason() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 32), nn.Linear(32, 3)
            self.register_buffer("scale", torch.ones(32))

        def forward(self, values: Tensor) -> Tensor:
            return self.b(self.a(values) * self.scale)

    with pytest.raises(OperationFailed, match="does not run with fewer channels"):
        pruned(Fixed().eval(), (torch.randn(2, 4),), 0.5)


def test_a_place_that_fixes_a_width_is_left_and_named() -> None:
    class View(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 16, 3, padding=1)
            self.hidden, self.head = nn.Linear(16 * 64, 32), nn.Linear(32, 3)

        def forward(self, images: Tensor) -> Tensor:
            maps = self.b(self.a(images).relu()).relu()
            return self.head(self.hidden(maps.view(-1, 16 * 64)).relu())

    torch.manual_seed(0)
    model = View().eval()
    result = pruned(model, CONV2D, 0.5)
    assert result.widths == {"a": (32, 16), "hidden": (32, 16)}
    assert "does not run with fewer channels" in result.left_out["b"]
    assert model.a.out_channels == model.b.in_channels == 16
    assert model.b.out_channels == 16


@pytest.mark.parametrize("mix", ["attention", "function", "softmax"])
def test_channels_that_a_function_mixes_are_left_and_named(mix: str) -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 16), nn.Linear(6, 16)
            self.weight = nn.Parameter(torch.randn(16, 16))
            self.hidden, self.head = nn.Linear(16, 32), nn.Linear(32, 3)

        def forward(self, series: Tensor) -> Tensor:
            a, b = self.a(series), self.b(series)
            mixed = {
                "attention": lambda: torch.softmax(a @ b.transpose(1, 2), -1) @ b,
                "function": lambda: nn.functional.linear(a, self.weight) + b,
                "softmax": lambda: torch.softmax(a + b, -1),
            }[mix]()
            return self.head(self.hidden(mixed).relu().mean(1))

    torch.manual_seed(0)
    result = pruned(Mixing().eval(), (torch.randn(4, 5, 6),), 0.5)
    assert result.widths == {"hidden": (32, 16)}
    assert all("cannot be traced" in reason for name, reason in result.left_out.items() if name != "head")
    assert result.left_out.keys() & {"a", "b"}


def test_norms_keep_the_weights_of_the_channels_that_stay() -> None:
    """Few of many channels: torch-pruning would order the norm's weights as a set is ordered."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 3)).eval()
    important = [1, 3, 5, 17, 33, 40, 50, 60]
    with torch.no_grad():
        model[1].weight.copy_(torch.arange(64) / 64 + 0.5)
        weak = [channel for channel in range(64) if channel not in important]
        for weight in (model[0].weight, model[1].weight, model[3].weight.T):
            weight[weak] *= 1e-3
    kept = model[1].weight[important].clone()
    assert pruned(model, (torch.randn(4, 6),), 7 / 8).widths == {"0": (64, 8)}
    assert torch.equal(model[1].weight, kept)
    assert model[1].normalized_shape == (8,)
