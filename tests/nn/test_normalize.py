from __future__ import annotations

import pytest
import torch

from petra_optuna.nn.normalize import Normalize


def test_each_channel_uses_its_own_mean_and_deviation() -> None:
    images = torch.rand(2, 3, 4, 5)
    result = Normalize([0.1, 0.2, 0.3], [1.0, 2.0, 4.0])(images)
    for channel, (mean, std) in enumerate([(0.1, 1.0), (0.2, 2.0), (0.3, 4.0)]):
        torch.testing.assert_close(result[:, channel], (images[:, channel] - mean) / std)


def test_constants_belong_to_the_state_and_are_not_trained() -> None:
    layer = Normalize([0.5], [0.25])
    assert set(layer.state_dict()) == {"mean", "std"}
    assert not list(layer.parameters())


@pytest.mark.parametrize(("mean", "std"), [([0.0], [0.0]), ([0.0, 1.0], [1.0]), ([], [])])
def test_constants_that_cannot_normalise_are_refused(mean: list[float], std: list[float]) -> None:
    with pytest.raises(ValueError, match="`mean` and `std`"):
        Normalize(mean, std)
