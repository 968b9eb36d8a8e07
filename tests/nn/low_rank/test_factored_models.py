from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from petra_optuna.nn.low_rank.factored_models import factorize_fully, merge_factors, trainable_factors
from petra_optuna.nn.low_rank.factored_recurrent import matrix_names
from petra_optuna.nn.low_rank.pairs import decompose
from petra_optuna.nn.low_rank.ranks import singular_values_of


class Everything(nn.Module):
    """A layer of each kind, a pair, a grouped and two tied layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 8, padding_idx=0)
        self.conv = nn.Conv1d(8, 12, 3, padding=1)
        self.grouped = nn.Conv1d(12, 12, 3, padding=1, groups=12)
        self.image = nn.Conv2d(1, 4, 3, padding=1)
        self.gru = nn.GRU(12, 10, 2, batch_first=True, bidirectional=True)
        self.lstm = nn.LSTM(20, 10, batch_first=True, bias=False)
        self.pair = decompose(nn.Linear(40, 10), 4)
        self.tied = nn.ModuleList([nn.Linear(10, 10), nn.Linear(10, 10)])
        self.tied[1].weight = self.tied[0].weight

    def forward(self, tokens: Tensor) -> Tensor:
        values = self.grouped(self.conv(self.embed(tokens).transpose(1, 2))).transpose(1, 2)
        values = self.lstm(self.gru(values)[0])[0]
        hidden = self.pair(self.image(values[:, None]).mean(2).flatten(1))
        return self.tied[1](self.tied[0](hidden))


WHOLE = ("embed", "conv", "image", "gru", "lstm")


def test_all_layers_of_their_own_weight_become_factors_of_full_rank_and_whole_again() -> None:
    torch.manual_seed(0)
    model, tokens = Everything().eval(), torch.randint(0, 30, (3, 7))
    factored, names = factorize_fully(copy.deepcopy(model))
    assert names == WHOLE
    torch.testing.assert_close(factored(tokens), model(tokens), rtol=1e-4, atol=1e-5)
    factors = trainable_factors(factored)
    recurrent = [f"gru.{name}" for name in matrix_names(model.gru)]
    recurrent += [f"lstm.{name}" for name in matrix_names(model.lstm)]
    assert list(factors) == ["embed", "conv", "image", *recurrent, "pair"]
    for name, (left, right) in factors.items():
        if name in recurrent:
            assert len(right) == min(len(left), right.shape[1])
            torch.testing.assert_close(left @ right, model.get_parameter(name), rtol=1e-4, atol=1e-5)
    merged = merge_factors(factored, names)
    assert repr(merged) == repr(model)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(merged.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_factors_of_all_kinds_are_differentiable() -> None:
    model, _ = factorize_fully(Everything())
    sum(singular_values_of(*pair).sum() for pair in trainable_factors(model).values()).backward()  # type: ignore[union-attr]
    trained = {name.split(".")[0] for name, value in model.named_parameters() if value.grad is not None}
    assert trained == {*WHOLE, "pair"}


@pytest.mark.parametrize("whole", [lambda: nn.Linear(6, 4), lambda: nn.LSTM(6, 4)])
def test_a_model_that_is_one_layer_is_replaced(whole: Callable[[], nn.Module]) -> None:
    factored, names = factorize_fully(whole())
    assert names == ("",)
    assert trainable_factors(factored)
    assert repr(merge_factors(factored, names)) == repr(whole())
