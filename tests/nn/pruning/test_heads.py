"""Heads leave with all that belongs to them, the least important ones, and nothing else changes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from conformance.attention_models import HEADS, Encoder, bert, deit, distilbert, swin
from torch import Tensor, nn
from torch.nn import functional

from petra_optuna.nn.counting import count_macs
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.low_rank import decompose
from petra_optuna.nn.pruning import (
    CRITERIA,
    Criterion,
    PruningResult,
    prune_channels,
    prune_group,
    weight_scores,
)
from petra_optuna.nn.pruning.importance import random_scores
from petra_optuna.tasks.torchvision_shim import load_torchvision

CLASSES, TOKENS = 3, 20


class Own(nn.Module):
    """Attention as people write it for a vision transformer, with a learned bias of each head.

    Args:
        fixed: Whether ``forward`` takes the width of a head from the input, so that no head may leave.
    """

    def __init__(self, fixed: bool = False) -> None:
        super().__init__()
        self.heads, self.size, self.fixed = 4, 8, fixed
        self.to_qkv = nn.Linear(24, 96, bias=False)
        self.to_out = nn.Sequential(nn.Linear(32, 24), nn.Dropout())
        self.head = nn.Linear(24, CLASSES)

    def forward(self, vectors: Tensor) -> Tensor:
        batch, length, _ = vectors.shape
        size = 32 // self.heads if self.fixed else self.size
        parts = self.to_qkv(vectors).chunk(3, dim=-1)
        q, k, v = (part.view(batch, length, self.heads, size).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, -1)
        return self.head((vectors + self.to_out(mixed)).mean(1))


class Crossed(nn.Module):
    """A decoder layer of torch that reads another sequence; of it heads leave, but no width."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.Linear(6, 32)
        self.decoder = nn.TransformerDecoderLayer(32, HEADS, 64, dropout=0.0, batch_first=True)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, vectors: Tensor) -> Tensor:
        memory = self.memory(vectors[..., :6])
        return self.head(self.decoder(memory[:, :3], memory).mean(1))


def vision_transformer() -> nn.Module:
    model: nn.Module = load_torchvision().models.VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=CLASSES
    )
    nn.init.normal_(model.get_parameter("heads.head.weight"))
    return model


def _tokens() -> Tensor:
    return torch.randint(TOKENS, (4, 9))


def _images() -> Tensor:
    return torch.randn(4, 3, 16, 16)


def _vectors() -> Tensor:
    return torch.randn(4, 7, 24)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], str]] = {
    "encoder": (lambda: Encoder(TOKENS, CLASSES), _tokens, "encoder.layers.0.self_attn"),
    "encoder, time first": (
        lambda: Encoder(TOKENS, CLASSES, batch_first=False, norm_first=True),
        _tokens,
        "encoder.layers.1.self_attn",
    ),
    "decoder": (Crossed, _vectors, "decoder.multihead_attn"),
    "vision transformer": (vision_transformer, _images, "encoder.layers.encoder_layer_1.self_attention"),
    "swin": (lambda: swin(CLASSES), _images, "features.3.1.attn"),
    "swin V2": (lambda: swin(CLASSES, version=2), _images, "features.3.0.attn"),
    "deit": (lambda: deit(CLASSES), _images, "blocks.1.attn"),
    "bert": (lambda: bert(TOKENS, CLASSES), _tokens, "classifier.bert.encoder.layer.0.attention.self"),
    "distilbert": (
        lambda: distilbert(TOKENS, CLASSES),
        _tokens,
        "classifier.distilbert.transformer.layer.1.attention",
    ),
    "one's own": (Own, _vectors, ""),
}
OUTPUTS = {"attn": "proj", "self": "..output.dense", "attention": "out_lin", "": "to_out.0"}
"""Layer that reads the heads by the last part of the module's name; ``out_proj`` for others."""


def built(case: str) -> tuple[nn.Module, Inputs, str]:
    torch.manual_seed(0)
    build, draw, name = MODELS[case]
    model = build().eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model, (draw(),), name


def prune(model: nn.Module, inputs: Inputs, criterion: Criterion = "magnitude_l2") -> PruningResult:
    targets = torch.arange(len(next(iter(inputs)))) % CLASSES

    def scores(scored: nn.Module) -> dict[nn.Parameter, Tensor]:
        return weight_scores(
            scored,
            criterion,
            batches=[inputs],
            loss=lambda net, batch: functional.cross_entropy(forward(net, batch), targets),
            seed=0,
        )

    return prune_channels(model, inputs, scores, 0.5, "local")


def output_layer(model: nn.Module, name: str) -> nn.Linear:
    path = OUTPUTS.get(name.rpartition(".")[2], "out_proj")
    above = name.rpartition(".")[0] if path.startswith("..") else name
    layer = model.get_submodule(f"{above}.{path.removeprefix('..')}".lstrip("."))
    assert isinstance(layer, nn.Linear)
    return layer


@pytest.mark.parametrize("case", MODELS)
def test_half_of_the_heads_leave_every_attention_module_and_training_works(case: str) -> None:
    model, inputs, name = built(case)
    macs = count_macs(model, inputs)
    result = prune(model, inputs)
    assert name in result.heads
    assert all(after == before // 2 for before, after in result.heads.values())
    assert count_macs(model, inputs) < macs
    forward(model.train(), inputs).sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


SCORED = [name for name in CRITERIA if name not in ("batch_norm", "random")]


@pytest.mark.parametrize(
    ("case", "criterion"),
    [*((case, "taylor") for case in MODELS), *(("one's own", name) for name in SCORED if name != "taylor")],
)
def test_heads_that_nothing_reads_leave_and_the_model_computes_the_same(
    case: str, criterion: Criterion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every criterion gives no weight of a head that is silent and small a score above the others."""
    monkeypatch.setattr("petra_optuna.nn.pruning.candidates.LARGEST_CUT", 0)  # no channels leave
    model, inputs, name = built(case)
    layer = output_layer(model, name)
    heads = 4
    size = layer.in_features // heads
    with torch.no_grad():
        for head in (1, 2):
            layer.weight[:, head * size : (head + 1) * size] = 0
        _shrink_makers(model, name, size, (1, 2))
        kept = layer.weight.reshape(-1, heads, size)[:, (0, 3)].flatten(1).clone()
        expected = forward(model, inputs)
    others = {module for module in _attention_names(copy.deepcopy(model), inputs) if module != name}
    monkeypatch.setattr(
        "petra_optuna.nn.pruning.heads.HeadCandidate.removable_blocks",
        lambda self: [] if self.heads.name in others else [(0.0, 1), (0.0, 1)],
    )
    result = prune(model, inputs, criterion)
    assert result.heads[name] == (4, 2)
    assert torch.equal(output_layer(model, name).weight, kept)
    torch.testing.assert_close(forward(model, inputs), expected, rtol=1e-4, atol=1e-5)


def _shrink_makers(model: nn.Module, name: str, size: int, heads: tuple[int, ...]) -> None:
    """Make the rows of these heads tiny in all projections of the attention module."""
    module = model.get_submodule(name)
    fused = ("in_proj_weight", "qkv.weight", "to_qkv.weight")
    apart = [f"{part}.weight" for part in ("query", "key", "value", "q_lin", "k_lin", "v_lin")]
    weights = {key: value for key, value in module.named_parameters() if key in (*fused, *apart)}
    assert weights
    for key, weight in weights.items():
        for part in weight.chunk(3 if key in fused else 1):
            for head in heads:
                part[head * size : (head + 1) * size] *= 1e-4


def _attention_names(model: nn.Module, inputs: Inputs) -> set[str]:
    return set(prune(model, inputs).heads)


def test_random_heads_are_drawn_by_the_seed() -> None:
    kept = []
    for seed in (0, 0, 1, 2, 3):
        model, inputs, name = built("deit")
        scores = random_scores(model, seed)
        _, width = prune_group(model.requires_grad_(), inputs, scores, f"{name} heads", 0.5)
        assert width == 16
        pruned, _ = prune_group(model, inputs, scores, f"{name} heads", 0.5)
        kept.append(output_layer(pruned, name).weight)
    assert torch.equal(kept[0], kept[1])
    assert not all(torch.equal(kept[0], other) for other in kept)


def test_projections_that_are_pairs_lose_heads() -> None:
    model, inputs, name = built("deit")
    module = model.get_submodule(name)
    module.qkv, module.proj = decompose(module.qkv, 16), decompose(module.proj, 16)
    assert prune(model, inputs).heads[name] == (4, 2)
    assert (module.qkv.second.out_features, module.proj.first.in_features) == (48, 16)


def test_attention_that_fixes_the_width_of_a_head_is_left_and_named() -> None:
    torch.manual_seed(0)
    model, inputs = Own(fixed=True).eval(), (_vectors(),)
    wide = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 24))
    whole = nn.Sequential(wide, model).eval()
    result = prune(whole, inputs)
    assert "1" not in result.heads
    assert "does not run with fewer" in result.left_out["1 heads"]
    assert result.widths["0.0"] == (32, 16)
    assert (whole[1].heads, whole[1].to_qkv.out_features) == (4, 96)


def test_one_head_and_shared_projections_are_left_and_named() -> None:
    torch.manual_seed(0)
    model = Encoder(TOKENS, CLASSES).eval()
    model.encoder.layers[0].self_attn = nn.MultiheadAttention(32, 1, batch_first=True).eval()
    first, second = nn.Sequential(Own()), Own()
    second.to_qkv.weight = first[0].to_qkv.weight

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = first, second

        def forward(self, vectors: Tensor) -> Tensor:
            return self.first(vectors) + self.second(vectors)

    result = prune(model, (_tokens(),))
    assert result.left_out["encoder.layers.0.self_attn"] == "its attention has one head"
    assert result.heads == {"encoder.layers.1.self_attn": (4, 2)}
    result = prune(Two().eval(), (_vectors(),))
    assert not result.heads
    assert "shares a weight" in result.left_out["second"]


def test_frozen_attention_stays_frozen() -> None:
    model, inputs, name = built("vision transformer")
    model.get_submodule(name).requires_grad_(False)
    prune(model, inputs)
    assert not any(parameter.requires_grad for parameter in model.get_submodule(name).parameters())
    assert all(
        parameter.requires_grad for key, parameter in model.named_parameters() if not key.startswith(name)
    )
