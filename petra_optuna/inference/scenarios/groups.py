"""Groups of samples that arrive together and are split into calls."""

from __future__ import annotations

import numpy as np

from petra_optuna.inference.call_times import CallTimes
from petra_optuna.inference.scenarios.response import Run


def split(samples: int, batch: int) -> tuple[int, ...]:
    """Sizes of the calls of one group: all of ``batch``, the last one smaller where it does not fit."""
    whole, rest = divmod(samples, batch)
    return (batch,) * whole + ((rest,) if rest else ())


def mean_seconds(samples: int, batch: int, times: CallTimes) -> float:
    """Mean seconds that one group takes when split into calls of ``batch``."""
    return sum(times.mean(size) for size in split(samples, batch))


def fastest_batch(samples: int, times: CallTimes) -> int:
    """The batch size with which one group takes least time; the smallest one of several."""
    batches = range(1, min(samples, times.largest_batch) + 1)
    return min(batches, key=lambda batch: mean_seconds(samples, batch, times))


def serve_groups(
    samples: int,
    period_s: float,
    batch: int,
    times: CallTimes,
    rng: np.random.Generator,
    shape: tuple[int, int],
) -> Run:
    """Serve groups in order of arrival; a call holds samples of one group only.

    Args:
        samples: Samples of each group.
        period_s: Seconds between two groups.
        batch: Most samples of a call.
        times: Call times by batch size.
        rng: Source of the call times.
        shape: Number of repetitions, and of groups in each.
    """
    calls = np.array(split(samples, batch))
    seconds = times.at(calls, rng.random((*shape, len(calls))))
    work = seconds.sum(axis=2)
    before = np.cumsum(work, axis=1) - work  # work of all earlier groups
    arrivals = np.arange(shape[1]) * period_s
    # Lindley's recursion start[g] = max(arrival[g], start[g - 1] + work[g - 1]), solved for all groups.
    starts = before + np.maximum.accumulate(arrivals - before, axis=1)
    answered = starts[:, :, None] + np.cumsum(seconds, axis=2)
    response = np.repeat(answered - arrivals[:, None], calls, axis=2)
    return Run(response.reshape(shape[0], -1), busy_s=work.sum(axis=1), span_s=answered[:, -1, -1])
