from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from petra_optuna.nn.counting import count_macs, count_parameters


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 7))
        self.tail = nn.Linear(5, 7)
        self.tail.weight = nn.Parameter(self.weight.detach().T.clone())
        self.twin = nn.Linear(5, 7)
        self.twin.weight = self.tail.weight

    def forward(self, values: Tensor) -> Tensor:
        return self.twin(torch.relu(functional.linear(values, self.weight))) + self.tail(values[:, :5])


def test_tied_tensors_count_once() -> None:
    assert count_parameters(Functional()) == 35 + 35 + 7 + 7


def test_functional_calls_and_modules_count_per_sample() -> None:
    for batch in (1, 4):
        assert count_macs(Functional(), (torch.randn(batch, 7),)) == 3 * 35


def test_convolution_by_hand_and_by_keyword() -> None:
    model = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
    assert count_macs(model, {"input": torch.randn(2, 3, 10, 10)}) == 5 * 5 * 8 * 3 * 9


def test_counting_changes_neither_mode_nor_statistics() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    model[2].eval()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    count_macs(model, (torch.randn(3, 4),))
    assert [module.training for module in model.modules()] == [True, True, True, False]
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
