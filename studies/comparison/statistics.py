"""Ranks, paired tests and effect sizes over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from petra_optuna.aliases import Array


def mean_ranks(table: Array) -> Array:
    """Mean rank of each sampler, shape (k,); 1 is best, ties share.

    Args:
        table: Scores, higher is better, shape (n, k): a row for each problem and seed.
    """
    return np.asarray(stats.rankdata(-table, axis=1).mean(axis=0))


def wilcoxon(first: Array, second: Array) -> float:
    """Two-sided p of the signed-rank test of paired scores; 1 where all are equal."""
    differences = first - second
    if not np.any(differences):
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="zsplit").pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values (Holm 1979): the error over the whole family stays below the level."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for step, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - step) * p))
        adjusted[name] = largest
    return adjusted


def a12(first: Sequence[float], second: Sequence[float]) -> float:
    """Probability that one of the first is above one of the second, ties half (Vargha and Delaney 2000)."""
    greater = np.subtract.outer(np.asarray(first, float), np.asarray(second, float))
    return float(np.mean((greater > 0) + 0.5 * (greater == 0)))
