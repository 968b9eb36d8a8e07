"""Comparing two functions that differ in speed on a machine that is never quiet.

Blocks of calls alternate between the candidate and the baseline. Within a block the caches belong to one
of them (alternating single calls made a net that is 8.5 times faster look 3 times faster); the first
calls of each block, which refill the caches, are thrown away. Two neighbouring blocks make a pair and
give one ratio, so that slow drifts of the machine cancel; the order within a pair is swapped from pair
to pair, so that an advantage of going first cancels as well.

A call that another process interrupts is longer by what it waited for a core. In a block of short calls that
is a few, and the median passes them over; calls as long as a time slice are all interrupted, and beside
trainings a fast net looked twice as fast against its baseline as it was. So it is taken out of long calls:
the waits are read within the time that they are taken from, so that no call is charged for what was waited
before it or between it and the clock.

Where in memory a session happens to lie makes it up to 6 % faster or slower for all its life (a net of
50 us a call, against copies of itself). So both sides come as several copies, and each pair takes the next.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from petra_optuna.errors import MeasurementFailed
from petra_optuna.measurement.record import Measurement

Call = Callable[[], object]
Clock = Callable[[], float]
_SHORT_CALL_S = 0.0003
"""Shorter calls than this keep their waits, which the median passes over: reading them takes some 3 us."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long to measure.

    Attributes:
        block_s: Timed seconds of a block, at least; one call at least.
        settle_s: Seconds of untimed calls at the start of each block, at least; one call at least.
        min_pairs, max_pairs: Bounds on the number of pairs, both even: each order as often as the other.
        tolerance: Stop once the interval of the median ratio is narrower than this share of it.
        max_s: Stop after as many seconds once there are ``min_pairs``: calls of seconds are not noisy.
    """

    block_s: float = 0.05
    settle_s: float = 0.005
    min_pairs: int = 6
    max_pairs: int = 30
    tolerance: float = 0.03
    max_s: float = 20.0

    def __post_init__(self) -> None:
        """Check the numbers of pairs."""
        if self.min_pairs < 2 or self.min_pairs % 2 or self.max_pairs % 2 or self.max_pairs < self.min_pairs:
            raise ValueError(
                "min_pairs and max_pairs must be even and 2 <= min <= max, "
                f"got {self.min_pairs} and {self.max_pairs}"
            )


DEFAULT_SCHEDULE = Schedule()


@dataclasses.dataclass(frozen=True)
class Block:
    """The timed calls of one block; the median of ``times`` stands for the block.

    Attributes:
        times: Seconds of each call, without what it waited for a core where that was read.
        elapsed: Seconds of each call by the clock alone.
    """

    times: tuple[float, ...]
    elapsed: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """Median time of a call."""
        return float(np.median(self.times))


def compare(
    candidates: Sequence[Call],
    baselines: Sequence[Call],
    clock: Clock,
    *,
    batch: int,
    threads: int,
    waited: Clock = lambda: 0.0,
    schedule: Schedule = DEFAULT_SCHEDULE,
) -> Measurement:
    """Measure a candidate against the baseline.

    Args:
        candidates: Each runs one batch through its own copy of the candidate. An odd number of copies meets
            both orders equally often.
        baselines: The same for the baseline.
        clock: Seconds, monotonic.
        batch: Samples per call; recorded.
        threads: Of both; recorded.
        waited: Seconds of ``clock`` in which a call could have run and was given no core, so far.
        schedule: Lengths and bounds.

    Raises:
        MeasurementFailed: When a block has no positive time, as by a clock that stands still or goes back.
    """
    pairs: list[tuple[Block, Block]] = []
    low = high = ratio = math.nan
    began = clock()
    while len(pairs) < schedule.max_pairs:
        pairs.append(_pair(candidates, baselines, len(pairs), clock, waited, schedule))
        if len(pairs) < schedule.min_pairs or len(pairs) % 2:
            continue
        ratio, low, high = median_ratio([_positive(own) / _positive(its) for own, its in pairs])
        if high - low <= schedule.tolerance * ratio or clock() - began > schedule.max_s:
            break
    own_median = float(np.median([own.seconds for own, _ in pairs]))
    elapsed = np.array([np.median(own.elapsed) for own, _ in pairs])
    return Measurement(
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        pairs=len(pairs),
        calls_per_block=int(np.median([len(own.times) for own, _ in pairs])),
        batch=batch,
        threads=threads,
        candidate_ms=own_median * 1e3,
        baseline_ms=float(np.median([its.seconds for _, its in pairs])) * 1e3,
        spread=float(np.median(np.abs(elapsed - np.median(elapsed))) / np.median(elapsed)),
        candidate_p95_ms=_p95([own for own, _ in pairs]) * 1e3,
        baseline_p95_ms=_p95([its for _, its in pairs]) * 1e3,
    )


def time_alone(
    copies: Sequence[Call],
    clock: Clock,
    *,
    waited: Clock = lambda: 0.0,
    schedule: Schedule = DEFAULT_SCHEDULE,
) -> float:
    """Seconds of one call: median over ``max_pairs`` blocks, the copies in turn, nothing in between.

    Raises:
        MeasurementFailed: As ``compare``.
    """
    times: list[float] = []
    began = clock()
    while len(times) < schedule.min_pairs or (
        len(times) < schedule.max_pairs and clock() - began <= schedule.max_s
    ):
        times.append(_positive(_block(copies[len(times) % len(copies)], clock, waited, schedule)))
    return float(np.median(times))


def median_ratio(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The median of ratios taken in alternating order, and its 95 % interval.

    The advantage of one order over the other is estimated (half the difference of the two orders'
    medians) and taken out first; all in logarithms, so that swapping the two sides inverts the result.
    The interval lies between order statistics and assumes no distribution (binomial, as for the sign test).

    Args:
        ratios: Positive, an even number; even positions in one order, odd ones in the other.

    Returns:
        Median, low, high.
    """
    logs = np.log(np.asarray(ratios, dtype=np.float64))
    bias = (np.median(logs[0::2]) - np.median(logs[1::2])) / 2
    logs[0::2] -= bias
    logs[1::2] += bias
    logs.sort()
    outside = _ranks_outside(len(logs))
    low, high = logs[outside], logs[len(logs) - 1 - outside]
    return float(np.exp(np.median(logs))), float(np.exp(low)), float(np.exp(high))


def _ranks_outside(count: int) -> int:
    """How many values may lie outside on each side so that the rest covers the median at 95 %."""
    outside, tail = 0, 0.0
    for rank in range(count // 2):
        tail += math.comb(count, rank) / 2**count
        if tail > 0.025:
            break
        outside = rank
    return outside


def _pair(
    candidates: Sequence[Call],
    baselines: Sequence[Call],
    index: int,
    clock: Clock,
    waited: Clock,
    schedule: Schedule,
) -> tuple[Block, Block]:
    """Block of the candidate and block of the baseline; the first goes first in even pairs."""
    candidate = candidates[index % len(candidates)]
    baseline = baselines[index % len(baselines)]
    if index % 2 == 0:
        own = _block(candidate, clock, waited, schedule)
        return own, _block(baseline, clock, waited, schedule)
    its = _block(baseline, clock, waited, schedule)
    return _block(candidate, clock, waited, schedule), its


def _block(call: Call, clock: Clock, waited: Clock, schedule: Schedule) -> Block:
    reads_waits = _settle(call, clock, schedule.settle_s) >= _SHORT_CALL_S
    times: list[float] = []
    elapsed: list[float] = []
    began = before = clock()
    while before - began < schedule.block_s:
        waits = waited() if reads_waits else 0.0
        call()
        if reads_waits:
            waits = waited() - waits
        now = clock()
        seconds = now - before
        elapsed.append(seconds)
        # Two clocks that disagree by a tick must not make a time of zero.
        times.append(seconds - waits if waits < seconds else seconds)
        before = now
    return Block(tuple(times), tuple(elapsed))


def _settle(call: Call, clock: Clock, least_s: float) -> float:
    """Call for so many seconds, at least once; the seconds of the shortest call."""
    shortest = math.inf
    began = before = clock()
    while True:
        call()
        now = clock()
        shortest = min(shortest, now - before)
        before = now
        if now - began >= least_s:
            return shortest


def _positive(block: Block) -> float:
    """The block's seconds.

    Raises:
        MeasurementFailed: When they are no positive number.
    """
    if not (math.isfinite(block.seconds) and block.seconds > 0):
        raise MeasurementFailed(f"the clock gave {block.seconds:g} s for a call; measure again")
    return block.seconds


def _p95(blocks: Sequence[Block]) -> float:
    return float(np.percentile(np.concatenate([block.elapsed for block in blocks]), 95))
