from __future__ import annotations

import torch
from torch import Tensor, nn

from petra_optuna.nn.batching import MOST_SAMPLES, samples_per_call
from petra_optuna.nn.inputs import split_up

WIDE = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 21, 1)).eval()


def test_small_models_take_256_samples_whatever_their_weights_are() -> None:
    assert samples_per_call(nn.Linear(5000, 5000).eval(), (torch.zeros(1, 5000),)) == MOST_SAMPLES


def test_large_activations_take_few_samples_at_whatever_batch_that_is_seen() -> None:
    """The widest operator reads and writes 64 maps of 256 x 256 numbers: 33.6 MB a sample."""
    for batch in (1, 2):
        assert samples_per_call(WIDE, (torch.zeros(batch, 3, 256, 256),)) == 2**28 // (2 * 64 * 256**2 * 4)
    assert samples_per_call(WIDE, (torch.zeros(1, 3, 1024, 1024),)) == 1


def test_an_operator_within_forward_counts() -> None:
    class Pairs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.unsqueeze(1) - x.unsqueeze(2)).amax(dim=(1, 2))

    assert samples_per_call(Pairs(), (torch.zeros(1, 4000),)) == 2**28 // (4000**2 * 4 + 4000 * 4)


def test_parts_of_a_batch_are_the_batch_in_order() -> None:
    inputs = {"x": torch.arange(7), "y": torch.arange(7) * 2}
    parts = split_up(inputs, 3)
    assert [len(part["x"]) for part in parts if isinstance(part, dict)] == [3, 3, 1]
    assert torch.equal(torch.cat([part["y"] for part in parts if isinstance(part, dict)]), inputs["y"])
