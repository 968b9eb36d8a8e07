"""Ranks for many matrices at once: singular values of all of them compete for the weights that they cost."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import torch

from petra_optuna.nn.low_rank.ranks import SVD, RankRule, break_even_rank, round_rank


@torch.no_grad()
def allocate(
    decompositions: Sequence[SVD], weights: Sequence[int], rule: RankRule, threshold: float
) -> list[int]:
    """Allocate ranks to matrices so that each weight spent keeps the most.

    What a singular value is worth is its share of its own matrix, of sigma^2 or (``singular_values``) of
    sigma, divided by the m + n weights that it costs. Those worth most are taken from all matrices together:
    ``energy`` and ``singular_values`` take the fewest that keep the threshold of a matrix on average,
    ``share`` as many as leave that share of the weights. So large matrices give first, where as much is
    lost for many more weights.

    Args:
        decompositions: Singular value decomposition of each matrix.
        weights: Weights that each matrix has now, factored or not.
        rule: Name of the rule.
        threshold: Threshold of the rule, in (0, 1].

    Returns:
        Ranks, at least 1; one that is not below the break-even rank stands for a whole matrix.
    """
    sides = [sum(svd.matrix.shape) for svd in decompositions]
    shares = [_shares(svd, 1 if rule == "singular_values" else 2) for svd in decompositions]
    worths = [share / side for share, side in zip(shares, sides, strict=True)]
    bounds = torch.cat(worths).sort(descending=True).values

    def ranks(index: int) -> list[int]:
        """Ranks that keep what is worth at least the ``index``-th largest worth of all."""
        return [max(1, int((worth >= bounds[index]).sum())) for worth in worths]

    def mean_kept(index: int) -> float:
        kept = [float(share[:rank].sum()) for share, rank in zip(shares, ranks(index), strict=True)]
        return sum(kept) / len(kept)

    def cost(index: int) -> int:
        total = 0
        for svd, side, now, rank in zip(decompositions, sides, weights, ranks(index), strict=True):
            total += min(now, side * round_rank(rank, break_even_rank(*svd.matrix.shape)))
        return total

    indices = range(len(bounds))
    if rule == "share":
        chosen = bisect_right(indices, threshold * sum(weights), key=cost) - 1
    else:
        chosen = bisect_left(indices, threshold, key=mean_kept)
    return ranks(min(max(chosen, 0), len(bounds) - 1))


def _shares(svd: SVD, power: int) -> torch.Tensor:
    """Share of each singular value, descending; in a matrix of zeros the first has all of it."""
    values = svd.singular_values**power
    if not values[0]:
        values[0] = 1
    return values / values.sum()
