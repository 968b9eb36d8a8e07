from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from petra_optuna.nn.low_rank.factored_recurrent import (
    FactoredRecurrent,
    Recurrent,
    assemble_recurrent,
    is_recurrent,
    matrix_names,
    weight_of,
)

LAYERS: dict[str, Callable[[], nn.GRU | nn.LSTM]] = {
    "gru": lambda: nn.GRU(5, 8),
    "stacked bidirectional gru": lambda: nn.GRU(5, 8, 2, batch_first=True, bidirectional=True),
    "gru without bias": lambda: nn.GRU(5, 8, 2, bias=False),
    "lstm": lambda: nn.LSTM(5, 8, batch_first=True),
    "stacked bidirectional lstm": lambda: nn.LSTM(5, 8, 3, bidirectional=True),
    "lstm without bias": lambda: nn.LSTM(5, 8, 2, bias=False, batch_first=True),
}


def made(case: str) -> tuple[FactoredRecurrent, nn.GRU | nn.LSTM]:
    """A layer with factors of rank 2 in each matrix but the last, and torch's with their products."""
    torch.manual_seed(0)
    layer = LAYERS[case]()
    *factored, whole = matrix_names(layer)
    parts: dict[str, Tensor | tuple[Tensor, Tensor]] = {
        name: (torch.randn(len(weight_of(layer, name)), 2), torch.randn(2, weight_of(layer, name).shape[1]))
        for name in factored
    }
    parts[whole] = weight_of(layer, whole)
    assembled = assemble_recurrent(layer, parts)
    assert isinstance(assembled, FactoredRecurrent)
    plain = assemble_recurrent(
        assembled, {name: weight_of(assembled, name) for name in matrix_names(assembled)}
    )
    assert isinstance(plain, nn.GRU | nn.LSTM)
    return assembled, plain


def flat(results: object) -> list[Tensor]:
    if isinstance(results, Tensor):
        return [results]
    assert isinstance(results, tuple)
    return [tensor for part in results if part is not None for tensor in flat(part)]


def assert_same(assembled: Recurrent, expected: Recurrent, *inputs: object) -> None:
    ours, theirs = flat(assembled(*inputs)), flat(expected(*inputs))
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", LAYERS)
def test_results_are_torchs(case: str) -> None:
    assembled, expected = made(case)
    count = expected.num_layers * (1 + expected.bidirectional)
    batch = 3
    state = torch.randn(count, batch, 8)
    sequences = torch.randn((batch, 6, 5) if expected.batch_first else (6, batch, 5))
    states = state if isinstance(expected, nn.GRU) else (state, torch.randn_like(state))
    assert_same(assembled, expected, sequences)
    assert_same(assembled, expected, sequences, states)
    packed = pack_sequence([torch.randn(length, 5) for length in (2, 6, 3)], enforce_sorted=False)
    assert_same(assembled, expected, packed)
    assert_same(assembled, expected, packed, states)
    single = states[:, 0] if isinstance(states, Tensor) else tuple(part[:, 0] for part in states)
    assert_same(assembled, expected, torch.randn(6, 5))
    assert_same(assembled, expected, torch.randn(6, 5), single)


@pytest.mark.parametrize("case", LAYERS)
def test_gradients_are_those_of_the_products(case: str) -> None:
    """dL/dleft = dL/dW right^T and dL/dright = left^T dL/dW, so the result is torch's in training too."""
    assembled, expected = made(case)
    sequences = torch.randn(3, 6, 5)
    for layer in (assembled, expected):
        layer(sequences)[0].square().sum().backward()
    for name in matrix_names(assembled):
        gradient = expected.get_parameter(name).grad
        assert gradient is not None
        if name not in assembled.ranks:
            torch.testing.assert_close(assembled.get_parameter(name).grad, gradient, rtol=1e-4, atol=1e-4)
            continue
        left, right = assembled.factors(name)
        torch.testing.assert_close(left.grad, gradient @ right.T, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(right.grad, left.T @ gradient, rtol=1e-4, atol=1e-4)


def test_dropout_falls_between_layers_while_training() -> None:
    layer = nn.GRU(5, 8, 2, dropout=0.5)
    name = "weight_ih_l0"
    weights = {part: weight_of(layer, part) for part in matrix_names(layer)}
    assembled = assemble_recurrent(layer, {**weights, name: (torch.eye(24), weights[name])})
    results = []
    for model in (layer, assembled):
        torch.manual_seed(1)
        results.append(model(torch.ones(4, 2, 5))[0])
    torch.testing.assert_close(results[0], results[1])
    assert not torch.equal(results[0], layer.eval()(torch.ones(4, 2, 5))[0])


@pytest.mark.parametrize("case", LAYERS)
def test_whole_matrices_give_torchs_layer_and_its_parameter_names(case: str) -> None:
    assembled, plain = made(case)
    assert repr(plain) == repr(LAYERS[case]())
    *factored, _ = matrix_names(plain)
    replaced = [f"{name}_{half}" for name in factored for half in ("left", "right")]
    kept = [name for name, _ in plain.named_parameters() if name not in factored]
    assert {name for name, _ in assembled.named_parameters()} == {*kept, *replaced}
    assert assembled.ranks == dict.fromkeys(factored, 2)


def test_assembling_keeps_mode_and_dtype_and_draws_no_random_numbers() -> None:
    layer = nn.LSTM(5, 8, dropout=0.2, num_layers=2).double().eval()
    weights = {name: weight_of(layer, name) for name in matrix_names(layer)}
    state, kept = torch.get_rng_state(), copy.deepcopy(layer.state_dict())
    assembled = assemble_recurrent(
        layer, {**weights, "weight_hh_l1": (weights["weight_hh_l1"], torch.eye(8))}
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert not assembled.training
    assert {value.dtype for value in assembled.state_dict().values()} == {torch.float64}
    with torch.no_grad():
        for parameter in assembled.parameters():
            parameter.zero_()
    assert all(torch.equal(value, kept[name]) for name, value in layer.state_dict().items())


def test_only_plain_layers_without_projection_count_as_recurrent() -> None:
    class Own(nn.GRU):
        pass

    assert all(is_recurrent(layer()) for layer in LAYERS.values())
    assert is_recurrent(made("gru")[0])
    for module in (nn.LSTM(4, 4, proj_size=2), Own(4, 4), nn.RNN(4, 4), nn.Linear(4, 4)):
        assert not is_recurrent(module)


@pytest.mark.parametrize(
    ("kind", "ranks", "reason"),
    [
        ("gru", {"weight_ih_l1": 2}, "weight_ih_l1"),
        ("gru", {"weight_hh_l0": 0}, "weight_hh_l0"),
        ("rnn", {}, "`kind` must be one of gru, lstm"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(kind: str, ranks: dict[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        FactoredRecurrent(kind, 5, 8, ranks=ranks)  # type: ignore[arg-type]
