from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from petra_optuna.models import ResidualNet
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.low_rank import LowRankPair, decompose
from petra_optuna.nn.pruning.blocks import block_score, find_replaceable
from petra_optuna.nn.pruning.dropping import drop_blocks
from petra_optuna.nn.pruning.importance import batch_norm_scores, lamp_scores, magnitude_scores, random_scores


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a ReLU after the sum."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(out)))))
        out += x
        return self.relu(out)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, linear projection; a skip where channels stay."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.skip = channels == out
        self.conv = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU6(inplace=True),
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU6(inplace=True),
            nn.Conv2d(2 * channels, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.skip else self.conv(x)


class PreActivation(nn.Module):
    """Changes its input in place, as published code does; no identity where the input is negative."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.relu(x))


class Unscaled(nn.Module):
    """Its norm has no weights: the mean alone would keep it from returning its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels, affine=False)
        self.alpha = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.conv(self.alpha(x)))


class InceptionResidual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv1d(channels, channels // 2, size, padding=size // 2) for size in (3, 5)
        )
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.norm(torch.cat([branch(x) for branch in self.branches], 1)))


class EncoderBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Pooled(nn.Module):
    """A body, the mean over all but batch and channels, and a head."""

    def __init__(self, body: nn.Module, channels: int, axis: int = 1) -> None:
        super().__init__()
        self.body, self.head, self.axis = body, nn.Linear(channels, 3), axis

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.head(x.mean([axis for axis in range(1, x.ndim) if axis != self.axis % x.ndim]))


def images(channels: int = 3, count: int = 4) -> Inputs:
    return (torch.randn(count, channels, 8, 8, generator=torch.Generator().manual_seed(0)),)


MODELS: dict[str, tuple[Callable[[], nn.Module], Inputs, tuple[str, ...]]] = {
    "residual": (
        lambda: ResidualNet(3, 5, widths=(8, 16), blocks=2),
        images(),
        ("stages.0", "stages.1", "stages.2.conv2", "stages.3"),
    ),
    "bottlenecks in a stage": (
        lambda: Pooled(
            nn.Sequential(
                nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Sequential(Bottleneck(8, 4), Bottleneck(8, 4)), nn.ReLU()
            ),
            8,
        ),
        images(),
        ("body.2.0", "body.2.1"),
    ),
    "inverted": (
        lambda: Pooled(nn.Sequential(InvertedResidual(3, 8), InvertedResidual(8, 8)), 8),
        images(),
        ("body.0.conv.3", "body.1"),
    ),
    "input changed in place": (
        lambda: Pooled(nn.Sequential(nn.Conv2d(3, 8, 1), PreActivation(8), nn.ReLU(), PreActivation(8)), 8),
        images(),
        ("body.1.conv", "body.3"),
    ),
    "norm without weights": (
        lambda: Pooled(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), Unscaled(8)), 8),
        images(),
        ("body.2",),
    ),
    "inception": (
        lambda: Pooled(nn.Sequential(nn.Conv1d(3, 8, 1), nn.ReLU(), InceptionResidual(8)), 8),
        (torch.randn(4, 3, 12, generator=torch.Generator().manual_seed(0)),),
        ("body.2",),
    ),
    "transformer": (
        lambda: Pooled(nn.Sequential(nn.Linear(6, 8), EncoderBlock(8), EncoderBlock(8)), 8, axis=-1),
        (torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0)),),
        ("body.1", "body.2"),
    ),
    "plain layers": (
        lambda: nn.Sequential(
            nn.Linear(6, 8),
            nn.ReLU(inplace=True),
            nn.Linear(8, 8),
            nn.ReLU(inplace=True),
            nn.Linear(8, 8),
            nn.ReLU(inplace=True),
            nn.Linear(8, 3),
        ),
        (torch.randn(4, 6, generator=torch.Generator().manual_seed(0)),),
        ("2", "4"),
    ),
    "low rank": (
        lambda: nn.Sequential(nn.Linear(6, 8), decompose(nn.Linear(8, 8), 2), nn.ReLU(), nn.Linear(8, 3)),
        (torch.randn(4, 6, generator=torch.Generator().manual_seed(0)),),
        ("1",),
    ),
}


def made(case: str) -> tuple[nn.Module, Inputs]:
    torch.manual_seed(3)
    factory, inputs, _ = MODELS[case]
    model = factory().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            nn.init.normal_(module.running_mean)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return model, inputs


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model: nn.Module, state: dict[str, Tensor]) -> bool:
    now = model.state_dict()
    return now.keys() == state.keys() and all(torch.equal(now[name], state[name]) for name in state)


@pytest.mark.parametrize("case", MODELS)
def test_innermost_residual_blocks_and_layers_that_keep_a_shape_are_found(case: str) -> None:
    model, inputs = made(case)
    state, output = state_of(model), forward(model, inputs)
    replaceable = find_replaceable(model, inputs)
    assert replaceable.names == MODELS[case][2]
    assert not replaceable.left_out
    assert unchanged(model, state)
    assert torch.equal(forward(model, inputs), output)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("case", MODELS)
def test_every_one_of_them_can_go(case: str) -> None:
    model, inputs = made(case)
    shape = forward(model, inputs).shape
    names = find_replaceable(model, inputs).names
    assert drop_blocks(model, names, len(names), inputs) == (list(names), {})
    assert forward(model, inputs).shape == shape
    assert all(isinstance(model.get_submodule(name), nn.Identity) for name in names)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("case", ["residual", "inverted", "transformer"])
def test_a_dropped_block_is_one_that_adds_nothing(case: str) -> None:
    model, inputs = made(case)
    name = find_replaceable(model, inputs).names[-1]
    with torch.no_grad():
        for parameter in model.get_submodule(name).parameters():
            parameter.zero_()
    silent = forward(model, inputs)
    drop_blocks(model, [name], 1, inputs)
    assert torch.equal(forward(model, inputs), silent)


def test_a_layer_before_the_output_stays_and_is_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(inplace=True), nn.LayerNorm(4))
    replaceable = find_replaceable(model.eval(), (torch.randn(2, 4),))
    assert replaceable.names == ("0",)
    assert replaceable.left_out == {"2": "no other layer stands between it and the output of the model"}


class Awkward(nn.Module):
    """Blocks and layers for which an identity cannot stand, each for another reason."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.wide, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.masked = Masked(8)
        self.one, self.other = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.other.weight = self.one.weight
        self.encoder = nn.GRU(8, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(self.twice(self.twice(x)))
        x = self.masked(x=x, mask=torch.ones_like(x))
        states, _ = self.encoder(self.other(self.one(x))[:, None])
        return self.head(states[:, -1])


class Masked(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x + mask * self.inner(x)


def test_what_an_identity_cannot_stand_for_is_named_with_the_reason() -> None:
    torch.manual_seed(0)
    replaceable = find_replaceable(Awkward().eval(), (torch.randn(3, 8),))
    assert replaceable.names == ("wide",)
    assert replaceable.left_out == {
        "twice": "it is called 2 times in a forward pass",
        "masked": "its first argument is not a tensor",
        "one": "it shares weights with another part of the model",
        "other": "it shares weights with another part of the model",
    }


def test_a_wrapped_model_is_not_dropped_as_a_whole() -> None:
    class Denoiser(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return x - self.conv(x)

    model = nn.Sequential(Denoiser(), nn.ReLU()).eval()
    assert find_replaceable(model, images()).left_out == {"0": "it holds all weights of the model"}
    assert find_replaceable(Denoiser().eval(), images()).names == ()


def test_zero_activations_prove_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), Residualless(8), nn.Linear(8, 2)).eval()
    nn.init.constant_(model[0].bias, -1e6)
    assert find_replaceable(model, (torch.randn(3, 4),)).names == ("2.layer",)


class Residualless(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@pytest.mark.parametrize("on", ["zero weights", "real weights"])
def test_an_error_inside_the_model_leaves_no_hook_and_no_zero_behind(on: str) -> None:
    class Refusing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            if bool(self.layer.weight.any()) == (on == "real weights"):
                raise ZeroDivisionError
            return x + self.layer(x)

    model = nn.Sequential(nn.Linear(4, 4), Refusing(), nn.Linear(4, 2)).eval()
    state = state_of(model)
    with pytest.raises(ZeroDivisionError):
        find_replaceable(model, (torch.randn(3, 4),))
    assert unchanged(model, state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_the_model_reads_goes_back_and_the_next_one_goes() -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.b(self.a(x))[:, : self.a.in_features])

    model = Reading().eval()
    kept = model.a
    dropped, failed = drop_blocks(model, ["a", "b"], 1, (torch.randn(3, 4),))
    assert dropped == ["b"]
    assert "does not run without it" in failed["a"]
    assert "in_features" in failed["a"]
    assert model.a is kept


class Chain(nn.Module):
    """Square layers in a row; each case relies on the first one in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.listed = [self.a]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.first(x)))

    def first(self, x: Tensor) -> Tensor:
        return self.a(x)


class ActivatedByClass(Chain):
    def first(self, x: Tensor) -> Tensor:
        return self.a(x).relu() if isinstance(self.a, nn.Linear) else self.a(x)


class CalledFromAList(Chain):
    def first(self, x: Tensor) -> Tensor:
        return self.listed[0](x)


class AssertedClass(Chain):
    def first(self, x: Tensor) -> Tensor:
        assert isinstance(self.a, nn.Linear)
        return self.a(x)


@pytest.mark.parametrize("kind", [ActivatedByClass, CalledFromAList, AssertedClass])
def test_without_a_block_the_model_computes_what_it_does_where_the_block_returns_its_input(
    kind: type[Chain],
) -> None:
    model = kind().eval()
    dropped, failed = drop_blocks(model, ["a", "b"], 2, (torch.randn(3, 4),))
    assert dropped == ["b"]
    assert failed.keys() == {"a"}
    assert type(model.a) is nn.Linear


def test_blocks_with_hooks_and_blocks_that_write_into_their_input() -> None:
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return x.add_(self.layer(x))

    model = nn.Sequential(nn.Linear(4, 4), Writing(), Writing(), nn.Linear(4, 2)).eval()
    model[2].register_forward_hook(lambda module, args, output: None)
    replaceable = find_replaceable(model, (torch.randn(3, 4),))
    assert replaceable.left_out == {"2": "its calls pass through hooks"}
    assert drop_blocks(model, ["1"], 1, (torch.randn(3, 4),)) == (["1"], {})


def test_magnitudes_are_relative_to_the_width() -> None:
    """Kaiming's weights have a variance of 1 / 3n, whatever the width: all blocks score about 1/3."""
    torch.manual_seed(0)
    for width in (32, 256):
        block = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.Conv1d(width, 2 * width, 3))
        nn.init.constant_(block[1].weight, 100.0)
        assert block_score(block, "magnitude_l2", magnitude_scores(block, 2)) == pytest.approx(1 / 3, rel=0.1)
        half = copy.deepcopy(block)
        with torch.no_grad():
            half[0].weight /= 2
            half[2].weight /= 2
        first, second = (
            block_score(each, "magnitude_l1", magnitude_scores(each, 1)) for each in (block, half)
        )
        assert first is not None
        assert second == pytest.approx(first / 2)


def test_scores_of_a_block_by_hand() -> None:
    block = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        block[0].weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 4.0]]))
        block[1].weight.copy_(torch.tensor([0.5, -1.5]))
        block[2].weight.copy_(torch.tensor([[3.0, -4.0]]))
    assert block_score(block, "magnitude_l2", magnitude_scores(block, 2)) == pytest.approx(2 * 55 / 6)
    assert block_score(block, "magnitude_l1", magnitude_scores(block, 1)) == pytest.approx(2**0.5 * 17 / 6)
    assert block_score(block, "batch_norm", batch_norm_scores(block)) == pytest.approx(1.0)
    lamp = (1 / 30 + 4 / 29 + 9 / 25 + 1) + (9 / 25 + 1)
    assert block_score(block, "lamp", lamp_scores(block)) == pytest.approx(lamp / 6)
    by_weight = {parameter: torch.ones_like(parameter) for parameter in block.parameters()}
    by_weight[block[0].bias] = torch.tensor([2.0, 4.0])
    assert block_score(block, "taylor", by_weight) == pytest.approx(16 / 12)
    draws = random_scores(block, 0)
    assert block_score(block, "random", draws) == float(draws[block[0].weight][0, 0])


def test_a_block_without_what_the_criterion_scores_has_no_score() -> None:
    block = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False))
    assert block_score(block, "batch_norm", batch_norm_scores(block)) is None


def test_the_layers_of_a_pair_are_not_blocks() -> None:
    model = nn.Sequential(nn.Linear(6, 4), LowRankPair(nn.Linear(4, 4, bias=False), nn.Linear(4, 8)))
    replaceable = find_replaceable(nn.Sequential(model, nn.Linear(8, 2)).eval(), (torch.randn(3, 6),))
    assert replaceable.names == ()
    assert not replaceable.left_out
