from __future__ import annotations

from torch import nn

from petra_optuna.nn.surgery import replace_module, shared_layers


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
