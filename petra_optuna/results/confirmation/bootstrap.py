"""Paired bootstrap: how far the quality of files may move with the choice of samples.

Percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Every file
sees the same resamples, so that what two of them share cancels in their difference. Where neighbours depend
on each other, as windows of a series do, whole blocks are drawn (Politis and Romano, A circular
block-resampling procedure for stationary data, 1992): single ones would give intervals that are too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from petra_optuna.aliases import Array
from petra_optuna.errors import MeasurementFailed, TaskError
from petra_optuna.results.confirmation.record import Estimate
from petra_optuna.tasks import Metric

LEVEL = (2.5, 97.5)


def resample(
    metric: Metric,
    outputs: Sequence[np.ndarray],
    targets: np.ndarray,
    count: int,
    rng: np.random.Generator,
    progress: Callable[[int], None] = lambda done: None,
    *,
    block: int = 1,
) -> Array:
    """The metric of each file on each resample, shape (resamples, files).

    Resamples on which the metric is undefined for a file (AUC with one class only, say) are left out for
    all files.

    Args:
        metric: Metric of the quality.
        outputs: Outputs (N, ...) of each file, as ``Metric.prepared`` gives them.
        targets: Targets (N, ...), as it gives them.
        count: Resamples to draw, N samples with replacement each.
        rng: Generator that draws them.
        progress: Called with the number of resamples done.
        block: Neighbouring samples that are drawn together; the last one's neighbour is the first.

    Raises:
        MeasurementFailed: When the metric is undefined on every resample.
    """
    score = _scorer(metric, outputs, targets)
    rows = []
    for done in range(1, count + 1):
        row = score(_drawn(len(targets), block, rng))
        if np.isfinite(row).all():
            rows.append(row)
        progress(done)
    if not rows:
        raise MeasurementFailed(f"{metric.name} is undefined on every resample of the test split")
    return np.stack(rows)


def interval(value: float, resamples: Array) -> Estimate:
    """The value with the percentile interval of its resamples, shape (resamples,)."""
    low, high = np.percentile(resamples, LEVEL)
    return Estimate(value, float(low), float(high))


def _drawn(count: int, block: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Indices of ``count`` samples in blocks of neighbours."""
    begins = rng.integers(0, count, -(-count // block))
    return ((begins[:, None] + np.arange(block)) % count).reshape(-1)[:count]


def _scorer(
    metric: Metric, outputs: Sequence[np.ndarray], targets: np.ndarray
) -> Callable[[npt.NDArray[np.int64]], Array]:
    if metric.per_sample is not None:
        table = np.stack([metric.per_sample(array, targets) for array in outputs], axis=1)
        return lambda chosen: np.asarray(table[chosen].mean(axis=0))
    return lambda chosen: np.array([_score(metric, array[chosen], targets[chosen]) for array in outputs])


def _score(metric: Metric, outputs: np.ndarray, targets: np.ndarray) -> float:
    try:
        return metric.of_prepared(outputs, targets)
    except (ArithmeticError, TaskError, ValueError):  # what a metric says of samples it cannot serve
        return float("nan")
