from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from petra_optuna.models.coles import contrastive_loss, random_slices


def _angles(*degrees: float) -> Tensor:
    radians = torch.deg2rad(torch.tensor(degrees, dtype=torch.double))
    return torch.stack([radians.cos(), radians.sin()], 1)


def _chord(degrees: float) -> float:
    return float(2 * torch.deg2rad(torch.tensor(degrees / 2, dtype=torch.double)).sin())


def test_hand_values_of_two_clients() -> None:
    """Slices at 0 and 60 degrees of one client, at 70 and 200 of the other: distances are chords."""
    loss = contrastive_loss(_angles(0, 60, 70, 200), torch.tensor([3, 3, 9, 9]))
    positives = _chord(60) ** 2 + _chord(130) ** 2
    negatives = 2 * (0.5 - _chord(10)) ** 2  # 60 and 70 are near, seen from both; all others are beyond 0.5
    assert float(loss) == pytest.approx(positives + negatives, rel=1e-6)


def test_equal_slices_of_one_client_and_far_ones_of_others_cost_nothing() -> None:
    assert float(contrastive_loss(_angles(0, 0, 180, 180), torch.tensor([0, 0, 1, 1]))) < 1e-6


def test_the_gradient_is_finite_where_slices_coincide() -> None:
    embeddings = _angles(0, 0, 0, 90).float().requires_grad_()
    contrastive_loss(embeddings, torch.tensor([0, 0, 1, 1])).backward()
    assert torch.isfinite(embeddings.grad).all()


@pytest.mark.parametrize("hardest", [1, 5, 100])
def test_hard_negatives_are_those_of_brute_force(hardest: int) -> None:
    torch.manual_seed(hardest)
    embeddings = functional.normalize(torch.randn(24, 3, dtype=torch.double), dim=1)
    clients = torch.arange(8).repeat_interleave(3)[torch.randperm(24)]
    pairs = list(itertools.product(range(24), repeat=2))
    distance = {(a, b): float((embeddings[a] - embeddings[b]).norm()) for a, b in pairs}
    positives = sum(distance[a, b] ** 2 for a, b in pairs if a < b and clients[a] == clients[b])
    negatives = 0.0
    for anchor in range(24):
        others = sorted(distance[anchor, b] for b in range(24) if clients[b] != clients[anchor])
        negatives += sum(max(0.0, 0.5 - value) ** 2 for value in others[:hardest])
    loss = contrastive_loss(embeddings, clients, hardest=hardest)
    assert float(loss) == pytest.approx(positives + negatives, rel=1e-5)


def test_slices_lie_in_their_sequences_and_every_one_occurs() -> None:
    lengths = torch.tensor([1, 2, 4, 9])
    starts, sizes = random_slices(lengths, 4000, 2, 4, torch.Generator().manual_seed(0))
    for row, length in enumerate(lengths.tolist()):
        low, high = min(2, length), min(4, length)
        expected = {(first, size) for size in range(low, high + 1) for first in range(length - size + 1)}
        assert set(zip(starts[row].tolist(), sizes[row].tolist(), strict=True)) == expected


def test_sizes_are_uniform_and_the_generator_decides() -> None:
    lengths = torch.full((50,), 6)
    starts, sizes = random_slices(lengths, 400, 2, 5, torch.Generator().manual_seed(1))
    shares = torch.bincount(sizes.flatten(), minlength=6)[2:] / sizes.numel()
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.02, rtol=0)
    again = random_slices(lengths, 400, 2, 5, torch.Generator().manual_seed(1))
    assert torch.equal(starts, again[0])
    assert torch.equal(sizes, again[1])


@pytest.mark.parametrize(("count", "shortest", "longest"), [(0, 1, 2), (1, 0, 2), (1, 3, 2)])
def test_impossible_slices_are_refused(count: int, shortest: int, longest: int) -> None:
    with pytest.raises(ValueError, match="slices need"):
        random_slices(torch.tensor([5]), count, shortest, longest, torch.Generator())


def test_a_sequence_without_events_has_no_slices() -> None:
    with pytest.raises(ValueError, match="without events"):
        random_slices(torch.tensor([5, 0]), 1, 1, 2, torch.Generator())
