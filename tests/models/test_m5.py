from __future__ import annotations

import pytest
import torch

from petra_optuna.models import M5
from petra_optuna.models.m5 import SHORTEST


def test_the_network_of_the_paper_has_its_number_of_weights() -> None:
    """Counted by hand from table 1 (0.5 million), with batch norms and a linear head for ten classes."""
    convolutions = 80 * 128 + 3 * (128 * 128 + 128 * 256 + 256 * 512)
    norms = 2 * (128 + 128 + 256 + 512)
    expected = convolutions + norms + 512 * 10 + 10
    assert sum(parameter.numel() for parameter in M5(1, 10).parameters()) == expected


@pytest.mark.parametrize("length", [SHORTEST, 8000, 16001])
def test_clips_of_any_length_have_logits(length: int) -> None:
    net = M5(2, 5, embedding=4).eval()
    clips = torch.randn(3, 2, length)
    assert net.stages(clips).shape == (3, 16, length // SHORTEST)
    assert net(clips).shape == (3, 5)


def test_a_clip_that_repeats_itself_is_like_its_period() -> None:
    """Inside a clip a period of whole strides gives the same position again, and the mean keeps it."""
    net = M5(1, 5, embedding=4).eval()
    period = torch.randn(1, 1, SHORTEST)
    features = net.stages(period.repeat(1, 1, 8))[..., 2:-2]
    torch.testing.assert_close(features, features[..., :1].expand_as(features))


def test_a_clip_that_is_too_short_is_refused_by_torch() -> None:
    with pytest.raises(RuntimeError, match="output size: 0"):
        M5(1, 5, embedding=4)(torch.randn(1, 1, SHORTEST - 1))
