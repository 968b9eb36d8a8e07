from __future__ import annotations

import pytest
import torch
from torch import nn

from petra_optuna.nn.holding import temporarily_set


def test_tensors_hold_other_values_inside_and_their_own_after_even_after_an_error() -> None:
    layer = nn.Linear(2, 2, bias=False)
    before, weight = layer.weight.detach().clone(), layer.weight
    with temporarily_set({layer.weight: torch.zeros(2, 2)}):
        assert layer.weight is weight
        assert not layer(torch.ones(1, 2)).any()
    assert torch.equal(layer.weight, before)
    with pytest.raises(RuntimeError), temporarily_set({layer.weight: torch.zeros(3, 3)}):
        layer(torch.ones(1, 2))
    assert torch.equal(layer.weight, before)
