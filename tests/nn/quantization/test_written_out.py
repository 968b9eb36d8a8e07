from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from petra_optuna.nn.function_mode import FunctionMode
from petra_optuna.nn.quantization.written_out import WRITTEN_OUT


class Names(FunctionMode):
    """Writes down the functions that are called, and writes out those that can be."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def intercept(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = getattr(func, "__name__", "")
        self.names.append(name)
        if name in WRITTEN_OUT:
            with self:
                return WRITTEN_OUT[name](*args, **kwargs)
        return func(*args, **kwargs)


def heads(count: int = 4) -> torch.Tensor:
    return torch.randn(2, count, 6, 8)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": torch.randn(6, 6)},
        {"attn_mask": torch.eye(6, dtype=torch.bool)},
        {"enable_gqa": True},
    ],
    ids=["plain", "causal", "scaled", "added mask", "boolean mask", "grouped"],
)
def test_a_dot_product_written_out_is_that_of_torch(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    few = 2 if options.get("enable_gqa") else 4
    query, key, value = heads(), heads(few), heads(few)
    with Names() as mode:
        written = functional.scaled_dot_product_attention(query, key, value, **options)
    expected = functional.scaled_dot_product_attention(query, key, value, **options)
    torch.testing.assert_close(written, expected, rtol=1e-5, atol=1e-6)
    assert mode.names.count("matmul") == 2


def test_a_product_that_is_added_to_something_is_that_of_torch() -> None:
    torch.manual_seed(0)
    added, left, right = torch.randn(3, 4, 5), torch.randn(3, 4, 6), torch.randn(3, 6, 5)
    for options in ({}, {"beta": 0.5, "alpha": 2.0}):
        with Names():
            written = torch.baddbmm(added, left, right, **options)
        torch.testing.assert_close(written, torch.baddbmm(added, left, right, **options))


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"kdim": 6, "vdim": 5}, {"add_bias_kv": True, "add_zero_attn": True}], ids=str
)
def test_a_mode_sees_the_layers_and_products_inside_of_attention(
    need_weights: bool, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    module = torch.nn.MultiheadAttention(8, 2, batch_first=True, **options).eval()
    query, key, value = torch.randn(3, 7, 8), torch.randn(3, 5, module.kdim), torch.randn(3, 5, module.vdim)
    with Names() as mode:
        written, weights = module(query, key, value, need_weights=need_weights)
    expected, expected_weights = module(query, key, value, need_weights=need_weights)
    torch.testing.assert_close(written, expected)
    assert (weights is None) is (expected_weights is None)
    assert mode.names.count("linear") == 4
