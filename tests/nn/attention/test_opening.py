"""Layered attention computes what torch's and torchvision's modules compute, and gives their place back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conformance.attention_models import Encoder, swin
from torch import Tensor, nn

from petra_optuna.nn.attention import (
    LayeredAttention,
    close_unchanged,
    layers_called,
    left_closed,
    open_attention,
)
from petra_optuna.nn.low_rank import decompose

BATCH, TARGETS, SOURCES, WIDTH, HEADS = 3, 5, 7, 16, 4
PADDING = torch.zeros(BATCH, SOURCES, dtype=torch.bool).index_fill(1, torch.tensor([5, 6]), True)
LATER = torch.triu(torch.ones(TARGETS, SOURCES, dtype=torch.bool), 2)

CALLS: dict[str, dict[str, Any]] = {
    "weights": {},
    "no weights": {"need_weights": False},
    "each head's weights": {
        "average_attn_weights": False,
        "attn_mask": torch.randn(BATCH * HEADS, TARGETS, 7),
    },
    "padding": {"key_padding_mask": PADDING},
    "padding and a mask": {"key_padding_mask": PADDING, "attn_mask": LATER, "need_weights": False},
    "added mask": {"attn_mask": torch.randn(TARGETS, SOURCES)},
}


def attention(**options: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(WIDTH, HEADS, **options).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def opened(module: nn.MultiheadAttention) -> LayeredAttention:
    model, _ = open_attention(nn.Sequential(copy.deepcopy(module)))
    layered = model.get_submodule("0")
    assert isinstance(layered, LayeredAttention)
    return layered


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 12, "vdim": 20}], ids=str)
def test_layered_attention_computes_the_same(options: dict[str, Any], batch_first: bool, call: str) -> None:
    module = attention(batch_first=batch_first, **options)
    shapes = ((TARGETS, WIDTH), (SOURCES, options.get("kdim", WIDTH)), (SOURCES, options.get("vdim", WIDTH)))
    tensors = [torch.randn(BATCH, *shape) for shape in shapes]
    inputs = tensors if batch_first else [tensor.transpose(0, 1) for tensor in tensors]
    expected, actual = module(*inputs, **CALLS[call]), opened(module)(*inputs, **CALLS[call])
    torch.testing.assert_close(actual, expected)


def test_layered_attention_computes_the_same_on_itself_causally_and_without_a_batch() -> None:
    module, values = attention(batch_first=True), torch.randn(BATCH, TARGETS, WIDTH)
    causal = {"attn_mask": nn.Transformer.generate_square_subsequent_mask(TARGETS), "is_causal": True}
    for inputs, arguments in ((values, {**causal, "need_weights": False}), (values, causal), (values[0], {})):
        expected = module(inputs, inputs, inputs, **arguments)
        torch.testing.assert_close(opened(module)(inputs, inputs, inputs, **arguments), expected)


def test_a_fused_projection_that_is_a_pair_serves_queries_keys_and_values_apart() -> None:
    module, layered = attention(batch_first=True), opened(attention(batch_first=True))
    layered.in_proj = decompose(layered.in_proj, WIDTH)
    query, key, value = torch.randn(BATCH, TARGETS, WIDTH), *torch.randn(2, BATCH, SOURCES, WIDTH)
    torch.testing.assert_close(layered(query, key, value), module(query, key, value), rtol=1e-4, atol=1e-4)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "swin": (lambda: swin(3), (2, 3, 16, 16)),
    "swin V2": (lambda: swin(3, version=2), (2, 3, 16, 16)),
    "swin with padding": (lambda: swin(3), (2, 3, 22, 18)),
    "swin in one window": (lambda: swin(3), (2, 3, 8, 16)),
}


@pytest.mark.parametrize("case", MODELS)
def test_windows_compute_the_same_and_close_again(case: str) -> None:
    build, shape = MODELS[case]
    model = build().eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    inputs, layout = torch.randn(shape), repr(model)
    expected = model(inputs)
    model, replaced = open_attention(model)
    assert len(replaced) == 4
    torch.testing.assert_close(model(inputs), expected)
    model = close_unchanged(model, replaced)
    assert repr(model) == layout
    assert torch.equal(model(inputs), expected)


def test_what_changed_stays_open_and_what_was_trained_is_kept() -> None:
    model, replaced = open_attention(Encoder(9, 3).eval())
    first, second = (layer.self_attn for layer in model.encoder.layers)
    first.out_proj = decompose(first.out_proj, 4)
    second.in_proj.weight.data += 1
    numbers = torch.arange(9)[None]
    with layers_called():
        expected = model(numbers)
        model = close_unchanged(copy.deepcopy(model), copy.deepcopy(replaced))
        torch.testing.assert_close(model(numbers), expected)
    kinds = [type(layer.self_attn) for layer in model.encoder.layers]
    assert kinds == [LayeredAttention, nn.MultiheadAttention]


class Own(nn.MultiheadAttention):
    """Attention that a user has changed."""


def _hooked() -> nn.Module:
    module = attention()
    module.out_proj.register_forward_hook(lambda *_: None)
    return module


def _normed() -> nn.Module:
    module = attention()
    nn.utils.parametrizations.weight_norm(module.out_proj)
    return module


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: Own(8, 2), "Own may compute something else"),
        (lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True), "keys of its own"),
        (lambda: nn.MultiheadAttention(8, 2, add_zero_attn=True), "keys of its own"),
        (_hooked, "hooks"),
        (_normed, "computed from others"),
    ],
)
def test_what_may_compute_something_else_is_left_and_named(
    build: Callable[[], nn.Module], reason: str
) -> None:
    model, replaced = open_attention(nn.Sequential(build()))
    assert not replaced
    assert reason in left_closed(model)["0"]


def test_shared_attention_is_left_and_named() -> None:
    module = attention()
    model, replaced = open_attention(nn.ModuleList([module, module]))
    assert not replaced
    assert "shares a weight" in left_closed(model)["0"]


class Called(nn.Linear):
    """A layer that says that it was called."""

    called = False

    def forward(self, input: Tensor) -> Tensor:
        self.called = True
        return super().forward(input)


def test_every_layer_is_called_inside_the_block_and_the_switch_is_as_it_was_behind_it() -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 8, batch_first=True).eval()
    layer.linear1 = Called(WIDTH, 8)
    values = torch.randn(2, 3, WIDTH)
    with torch.no_grad():
        layer(values)
        assert not layer.linear1.called
        with layers_called():
            layer(values)
    assert layer.linear1.called
    assert torch.backends.mha.get_fastpath_enabled()
