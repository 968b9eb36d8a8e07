from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from petra_optuna.nn.counting import count_parameters
from petra_optuna.nn.low_rank.factored_recurrent import FactoredRecurrent, matrix_names, weight_of
from petra_optuna.nn.low_rank.pairs import LowRankPair, decompose, weight_matrix
from petra_optuna.nn.low_rank.ranks import RankRule
from petra_optuna.nn.low_rank.reduce import reduce_layer


def falling(shape: tuple[int, int], base: float) -> Tensor:
    """A matrix of singular values base^0, base^1, ..."""
    u, s, vh = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    return u * base ** torch.arange(len(s)) @ vh


def convolution(split: str, base: float, stride: int = 1) -> nn.Conv2d:
    """32 -> 32, 3x3, with a spectrum that falls fast in one split and hence slower in the other."""
    torch.manual_seed(0)
    layer = nn.Conv2d(32, 32, 3, stride=stride, padding=1)
    with torch.no_grad():
        if split == "channel":
            layer.weight.copy_(falling((32, 288), base).reshape(32, 32, 3, 3))
        else:
            layer.weight.copy_(falling((96, 96), base).reshape(32, 3, 32, 3).permute(0, 2, 3, 1))
    return layer


def relative_error(layer: nn.Conv2d, rank: int, split: str) -> float:
    values = np.linalg.svd(weight_matrix(layer, split).detach().numpy(), compute_uv=False)  # type: ignore[arg-type]
    return float(np.sqrt((values[rank:] ** 2).sum() / (values**2).sum()))


@pytest.mark.parametrize(("rule", "threshold"), [("energy", 0.95), ("singular_values", 0.7), ("share", 0.7)])
@pytest.mark.parametrize("split", ["channel", "spatial"])
def test_of_two_splits_the_cheaper_at_equal_error_is_taken(
    rule: RankRule, threshold: float, split: str
) -> None:
    layer = convolution(split, 0.85)
    pair = reduce_layer(layer, rule, threshold).layer
    assert isinstance(pair, LowRankPair)
    assert pair.split == split
    other = "spatial" if split == "channel" else "channel"
    error = relative_error(layer, pair.rank, split)
    if rule == "energy":
        assert error**2 <= 1 - threshold
    per_rank = {"channel": 32 + 288, "spatial": 96 + 96}
    affordable = pair.rank * per_rank[split] // per_rank[other]
    assert relative_error(layer, affordable, other) > error


def test_a_stride_makes_the_spatial_split_dearer() -> None:
    """The columns' half runs at every column of the input, so at twice as many positions."""
    splits = {}
    for stride in (1, 2):
        layer = convolution("spatial", 0.97, stride)
        pair = reduce_layer(layer, "energy", 0.81).layer
        assert isinstance(pair, LowRankPair)
        splits[stride] = pair.split
    assert splits == {1: "spatial", 2: "channel"}


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_each_matrix_of_a_recurrent_layer_gets_its_own_rank_or_stays_whole(
    kind: type[nn.GRU] | type[nn.LSTM],
) -> None:
    torch.manual_seed(0)
    layer = kind(24, 32, 2, bidirectional=True).eval()
    with torch.no_grad():
        layer.weight_hh_l0.copy_(falling(tuple(layer.weight_hh_l0.shape), 0.5))
        layer.weight_ih_l1_reverse.copy_(falling(tuple(layer.weight_ih_l1_reverse.shape), 0.8))
    reduced = reduce_layer(layer, "energy", 0.99)
    assert isinstance(reduced.layer, FactoredRecurrent)
    assert reduced.ranks == {"weight_hh_l0": (None, 8), "weight_ih_l1_reverse": (None, 16)}
    assert reduced.layer.ranks == {"weight_hh_l0": 8, "weight_ih_l1_reverse": 16}
    assert set(reduced.left_out) == set(matrix_names(layer)) - reduced.ranks.keys()
    assert count_parameters(reduced.layer) < count_parameters(layer)
    for name in matrix_names(layer):
        kept, weight = weight_of(reduced.layer, name).detach(), weight_of(layer, name).detach()
        values = np.linalg.svd(weight.numpy(), compute_uv=False)[reduced.layer.ranks.get(name, 64) :]
        error = np.linalg.norm((kept - weight).numpy())
        assert error == pytest.approx(np.sqrt((values**2).sum()), rel=1e-3, abs=1e-5)


def test_factored_matrices_get_smaller_ranks_and_what_is_dearer_than_whole_becomes_whole() -> None:
    layer = nn.GRU(24, 32)
    first = reduce_layer(layer, "share", 0.9).layer
    assert isinstance(first, FactoredRecurrent)
    again = reduce_layer(first, "share", 0.9)
    assert again.layer is None
    assert set(again.left_out) == {"weight_ih_l0", "weight_hh_l0"}
    second = reduce_layer(first, "share", 0.25)
    assert second.ranks == {name: (first.ranks[name], 8) for name in first.ranks}
    assert isinstance(second.layer, FactoredRecurrent)
    second.layer.weight_ih_l0_right = nn.Parameter(torch.randn(40, 24))
    second.layer.weight_ih_l0_left = nn.Parameter(torch.randn(96, 40))
    third = reduce_layer(second.layer, "energy", 1.0)
    assert third.ranks == {"weight_ih_l0": (40, None)}
    assert isinstance(third.layer, FactoredRecurrent)
    torch.testing.assert_close(third.layer.weight_ih_l0, weight_of(second.layer, "weight_ih_l0"))


def test_an_all_whole_result_is_torchs_layer() -> None:
    layer = FactoredRecurrent("lstm", 4, 4, ranks={"weight_hh_l0": 6})
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    reduced = reduce_layer(layer, "energy", 1.0)
    assert reduced.ranks == {"weight_hh_l0": (6, None)}
    assert type(reduced.layer) is nn.LSTM


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(64, 64),
        nn.Conv1d(16, 32, 5),
        nn.Embedding(100, 32),
        decompose(nn.Conv1d(16, 32, 5), 16),
        decompose(nn.Embedding(100, 32), 20),
        decompose(nn.Conv2d(16, 16, 3), 20, "spatial"),
    ],
)
def test_layers_of_one_matrix(layer: nn.Linear | nn.Conv1d | nn.Embedding | LowRankPair) -> None:
    reduced = reduce_layer(layer, "share", 0.25)
    assert isinstance(reduced.layer, LowRankPair)
    before = layer.rank if isinstance(layer, LowRankPair) else None
    assert reduced.ranks == {"": (before, reduced.layer.rank)}
    assert reduced.layer.rank == 8
    assert count_parameters(reduced.layer) < count_parameters(layer)
    assert reduce_layer(reduced.layer, "share", 0.25).left_out[""].startswith("no rank")
