"""CoLES: slices of one client's events have similar embeddings, those of other clients do not.

Babaev et al., "CoLES: Contrastive Learning for Event Sequences with Self-Supervision", arXiv 2002.08232.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

MARGIN = 0.5
"""Distance from which on two clients are far enough apart."""
HARDEST = 5
"""Slices of other clients, the nearest ones, from which each slice is pushed away."""


def contrastive_loss(
    embeddings: Tensor, clients: Tensor, margin: float = MARGIN, hardest: int = HARDEST
) -> Tensor:
    """``sum d^2`` over pairs of one client plus ``sum relu(margin - d)^2`` over hard negatives.

    Hadsell, Chopra and LeCun 2006, equation 4, without its halves. Each pair of slices of one client counts
    once. The negatives of a slice are the ``hardest`` nearest slices of other clients (arXiv 2002.08232,
    section 3.4); a pair of slices that is hard for both counts twice.

    Args:
        embeddings: Embeddings of length one (N, D).
        clients: Number of the client of each, integers (N,).
        margin: Distance between clients.
        hardest: Number of negatives of each slice; all there are where there are fewer.

    Returns:
        The sum, not a mean.
    """
    embeddings = embeddings.float()
    # Cheaper than ``cdist``, and its gradient is defined where two slices have one embedding.
    lengths = embeddings.square().sum(1)
    squared = (lengths.unsqueeze(1) + lengths - 2 * embeddings @ embeddings.T).clamp(min=0.0)
    same = clients.unsqueeze(1) == clients
    positives = squared[same.triu(1)].sum()
    distances = squared.clamp(min=1e-12).sqrt().masked_fill(same, torch.inf)
    nearest = distances.topk(min(hardest, len(embeddings)), dim=1, largest=False).values
    return positives + functional.relu(margin - nearest).square().sum()


def random_slices(
    lengths: Tensor, count: int, shortest: int, longest: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random runs of consecutive events of each client (arXiv 2002.08232, algorithm 1).

    Sizes are uniform from ``shortest`` to ``longest``, starts uniform among those that fit. A client with
    fewer events than ``longest`` has no larger slices than its sequence; one with fewer than ``shortest``
    gives all of its events each time.

    Args:
        lengths: Number of events of each client, int64 (B,), at least 1.
        count: Number of slices of each.
        shortest: Least number of events of a slice.
        longest: Largest number of events of a slice.
        generator: Generator that draws them.

    Returns:
        First event and number of events of each slice, int64 (B, count) each.

    Raises:
        ValueError: When no slice of these sizes exists.
    """
    if count < 1 or not 1 <= shortest <= longest:
        raise ValueError(
            f"slices need `count` >= 1 and 1 <= `shortest` <= `longest`, got {count}, {shortest}, {longest}"
        )
    if len(lengths) and int(lengths.min()) < 1:
        raise ValueError("a sequence without events has no slices")
    least, most = lengths.clamp(max=shortest).unsqueeze(1), lengths.clamp(max=longest).unsqueeze(1)
    drawn = torch.rand((2, len(lengths), count), generator=generator, dtype=torch.double)
    sizes = least + (drawn[0] * (most - least + 1)).long()
    starts = (drawn[1] * (lengths.unsqueeze(1) - sizes + 1)).long()
    return starts, sizes
