"""Ranks for many matrices at once: singular values of all of them compete for the weights that they cost."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import torch

from petra_optuna.nn.low_rank.ranks import RankRule, Spectrum, break_even_rank, round_rank


@torch.no_grad()
def allocate(
    spectra: Sequence[Spectrum], weights: Sequence[int], rule: RankRule, threshold: float
) -> list[int]:
    """One rank for each matrix, where each weight spent keeps the most.

    What a singular value is worth is its share of its own matrix, of sigma^2 or (``singular_values``) of
    sigma, divided by the m + n weights that it costs. The most worth are taken from all matrices together:
    ``energy`` and ``singular_values`` take the fewest that keep the threshold of a matrix on average,
    ``share`` as many as leave that share of the weights. So large matrices give first, where as much is
    lost for many more weights.

    Args:
        spectra: Of the matrices.
        weights: What each costs now, factored or not.
        rule: Which rule.
        threshold: In (0, 1].

    Returns:
        Ranks, at least 1; one that is not below the break-even rank stands for a whole matrix.
    """
    sides = [sum(spectrum.matrix.shape) for spectrum in spectra]
    parts = [_shares(spectrum, 1 if rule == "singular_values" else 2) for spectrum in spectra]
    worths = [part / side for part, side in zip(parts, sides, strict=True)]
    least = torch.cat(worths).sort(descending=True).values

    def ranks(index: int) -> list[int]:
        return [max(1, int((worth >= least[index]).sum())) for worth in worths]

    def kept(index: int) -> float:
        found = [float(part[:rank].sum()) for part, rank in zip(parts, ranks(index), strict=True)]
        return sum(found) / len(found)

    def cost(index: int) -> int:
        total = 0
        for spectrum, side, now, rank in zip(spectra, sides, weights, ranks(index), strict=True):
            total += min(now, side * round_rank(rank, break_even_rank(*spectrum.matrix.shape)))
        return total

    indices = range(len(least))
    if rule == "share":
        found = bisect_right(indices, threshold * sum(weights), key=cost) - 1
    else:
        found = bisect_left(indices, threshold, key=kept)
    return ranks(min(max(found, 0), len(least) - 1))


def _shares(spectrum: Spectrum, power: int) -> torch.Tensor:
    """Of each singular value, descending; of a matrix of zeros all that there is goes to the first."""
    values = spectrum.values**power
    if not values[0]:
        values[0] = 1
    return values / values.sum()
