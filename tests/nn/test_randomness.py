from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from petra_optuna.nn.randomness import seeded


def _draw() -> tuple[float, float, float]:
    return torch.rand(1).item(), float(np.random.rand()), random.random()


def test_inside_is_fixed_and_outside_goes_on_as_if_nothing_happened() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    undisturbed = [_draw(), _draw()]
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    first = _draw()
    inside = []
    for seed in (2**61 + 5, 2**61 + 5, 7):
        with seeded(seed):
            inside.append(_draw())
    assert [first, _draw()] == undisturbed
    assert inside[0] == inside[1]
    assert all(one != other for one, other in zip(inside[1], inside[2], strict=True))


def test_generators_come_back_after_an_error() -> None:
    random.seed(3)
    expected = random.random()
    random.seed(3)
    with pytest.raises(KeyError), seeded(5):
        raise KeyError
    assert random.random() == expected
