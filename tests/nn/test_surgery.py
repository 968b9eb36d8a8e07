from __future__ import annotations

import pytest
import torch
from torch import nn

from petra_optuna.nn.surgery import replace_module, shared_layers, temporarily_set


def _nested() -> nn.Module:
    return nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), nn.Linear(3, 4))


def test_every_module_can_be_replaced_under_its_name() -> None:
    for name, _ in _nested().named_modules():
        marker = nn.Identity()
        assert dict(replace_module(_nested(), name, marker).named_modules())[name] is marker


def test_both_names_of_a_shared_parameter_are_found_and_no_others() -> None:
    assert shared_layers(_nested()) == set()
    tied = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3), "c": nn.Linear(3, 3)})
    tied["b"].weight = tied["a"].weight
    assert shared_layers(tied) == {"a", "b"}
    twice = nn.Linear(3, 3)
    assert shared_layers(nn.Sequential(twice, nn.ReLU(), twice)) == {"0", "2"}


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
