"""A queue of single samples before one server that answers them in batches, event by event."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from petra_optuna.aliases import Array
from petra_optuna.inference.call_times import CallTimes, Counts
from petra_optuna.inference.scenarios.policy import Policy
from petra_optuna.inference.scenarios.response import Run


def serve_queue(
    arrivals: Array, policies: Sequence[Policy], times: CallTimes, rng: np.random.Generator
) -> tuple[Run, ...]:
    """Serve the samples under each policy.

    Each event is the start of a call. All policies and repetitions, here called lanes, go from call to call
    together, so that a step of the loop is a handful of array operations. The calls of one number have the
    same random share under every policy, which makes differences between policies less noisy.

    Args:
        arrivals: Seconds at which samples arrive, ascending, shape (repetitions, samples).
        policies: Policies to compare.
        times: Call times by batch size.
        rng: Source of the call times.

    Returns:
        One run for each policy, in order.
    """
    repetitions, samples = arrivals.shape
    shares = rng.random((samples, repetitions))
    lanes = _Lanes.of(arrivals, policies)
    repetition = np.tile(np.arange(repetitions), len(policies))
    taken: list[tuple[Counts, Counts, Array]] = []
    active = np.arange(len(lanes.head))
    busy = np.zeros(len(active))
    for step in range(samples):
        starts, counts = lanes.next_calls(active)
        seconds = times.at(counts, shares[step, repetition[active]])
        ends = starts + seconds
        lanes.head[active] += counts
        lanes.free[active] = ends
        busy[active] += seconds
        taken.append((active, counts, ends))
        active = active[lanes.head[active] < samples]
        if not len(active):
            break
    shape = (len(policies), repetitions)
    answered = _by_sample(taken).reshape(*shape, samples)
    return tuple(
        Run(ended - arrivals, busy_s=worked, span_s=ended[:, -1] - arrivals[:, 0])
        for ended, worked in zip(answered, busy.reshape(shape), strict=True)
    )


@dataclasses.dataclass(frozen=True)
class _Lanes:
    """Where each lane stands; ``head`` and ``free`` are written to as the lanes go on.

    Attributes:
        row: Arrivals of all repetitions one after the other, moved apart so that the whole is ascending.
        begin: Place of the lane's first arrival in the row.
        shift: Seconds by which the lane's arrivals were moved.
        samples: Number of arrivals of a lane.
        batch, wait_s: The lane's policy.
        head: Number of samples that are answered or being answered.
        free: Second at which the server is free.
    """

    row: Array
    begin: Counts
    shift: Array
    samples: int
    batch: Counts
    wait_s: Array
    head: Counts
    free: Array

    @classmethod
    def of(cls, arrivals: Array, policies: Sequence[Policy]) -> _Lanes:
        repetitions, samples = arrivals.shape
        shift = np.arange(repetitions) * (arrivals.max() + 1.0)
        count = len(policies) * repetitions
        return cls(
            row=(arrivals + shift[:, None]).ravel(),
            begin=np.tile(np.arange(repetitions) * samples, len(policies)),
            shift=np.tile(shift, len(policies)),
            samples=samples,
            batch=np.repeat([policy.batch for policy in policies], repetitions),
            wait_s=np.repeat([policy.wait_s for policy in policies], repetitions),
            head=np.zeros(count, dtype=np.int64),
            free=np.zeros(count),
        )

    def next_calls(self, active: Counts) -> tuple[Array, Counts]:
        """When the next call of these lanes starts, and how many samples it takes."""
        head, begin, shift = self.head[active], self.begin[active], self.shift[active]
        last = head + self.batch[active] - 1
        fills = last < self.samples
        filled = np.where(fills, self.row[begin + np.minimum(last, self.samples - 1)], np.inf)
        ripe = self.row[begin + head] + self.wait_s[active]
        starts = np.maximum(self.free[active] + shift, np.minimum(filled, ripe))
        arrived = np.searchsorted(self.row, starts, side="right") - begin
        counts = np.minimum(np.minimum(arrived - head, self.batch[active]), self.samples - head)
        return starts - shift, counts


def _by_sample(taken: Sequence[tuple[Counts, Counts, Array]]) -> Array:
    """Second of the answer of each sample, lane after lane, from the calls in order of their steps."""
    lanes, counts, ends = (np.concatenate(parts) for parts in zip(*taken, strict=True))
    order = np.argsort(lanes, kind="stable")
    return np.repeat(ends[order], counts[order])
