from __future__ import annotations

import pytest
import torch

from petra_optuna.nn.normalize import Denormalize, Normalize


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


@pytest.mark.parametrize("shape", [(8, 2), (8, 2, 20), (8, 2, 3, 3, 3)])
def test_tables_series_and_volumes_are_normalised_by_channel(shape: tuple[int, ...]) -> None:
    batch = torch.rand(shape)
    result = Normalize([0.1, 0.2], [1.0, 2.0])(batch)
    for channel, (mean, std) in enumerate([(0.1, 1.0), (0.2, 2.0)]):
        torch.testing.assert_close(result[:, channel], (batch[:, channel] - mean) / std)


@pytest.mark.parametrize("shape", [(2, 20, 3), (2, 3), (2,)])
def test_another_number_of_channels_is_refused_and_never_broadcast(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="`normalize` has 2 channels, the input has shape"):
        Normalize([0.1, 0.2], [1.0, 2.0])(torch.rand(shape))


def test_targets_come_back_in_their_units() -> None:
    targets = torch.tensor([[300.0, -2.0], [310.0, -3.0]])
    mean, std = [305.0, -2.5], [5.0, 0.5]
    standardised = (targets - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(Denormalize(mean, std)(standardised), targets)


@pytest.mark.parametrize(("mean", "std"), [([0.0], [0.0]), ([0.0, 1.0], [1.0]), ([], [])])
def test_scales_of_targets_that_cannot_be_are_refused(mean: list[float], std: list[float]) -> None:
    with pytest.raises(ValueError, match="`mean` and `std`"):
        Denormalize(mean, std)
