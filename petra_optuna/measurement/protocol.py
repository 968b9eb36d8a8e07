"""Comparing the speed of two functions on a machine that is never quiet.

Blocks of calls alternate between the candidate and the baseline. Within a block the caches belong to one
of them (alternating single calls made a net that is 8.5 times faster look 3 times faster); the first
calls of each block, which refill the caches, are thrown away. Two neighbouring blocks make a pair and
give one ratio, so that slow drifts of the machine cancel; the order within a pair is swapped from pair
to pair, so that an advantage of going first cancels as well.

A call that another process interrupts is longer by the time for which it waited for a core. Of short calls
only a few are interrupted, and the median of a block passes them over. Calls as long as a time slice are all
interrupted: beside trainings a fast net looked twice as fast against its baseline as it was. So waits are
subtracted from long calls. They are read within the time that they are subtracted from, so no call is charged
for a wait before it or between it and the clock.

The place of a session in memory makes it up to 6 % faster or slower for all its life (a net of 50 us a call,
against copies of itself). So both sides come as several copies, and each pair takes the next.
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
"""Calls shorter than this keep their waits, which the median passes over: reading them takes some 3 us."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Length of a block, and when there are enough pairs of blocks.

    Attributes:
        block_s: Least timed seconds of a block; a block has at least one call.
        settle_s: Least seconds of untimed calls at the start of each block; there is at least one.
        min_pairs, max_pairs: Bounds on the number of pairs, both even: both orders occur equally often.
        tolerance: Share of the median ratio; measuring stops once its interval is narrower.
        max_s: Seconds after which ``min_pairs`` are enough: calls of seconds are not noisy.
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
        elapsed: Seconds of each call by the clock alone, waits included.
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
        candidates: Functions that each run one batch through a copy of the candidate. An odd number of copies
            meets both orders equally often.
        baselines: Functions that each run one batch through a copy of the baseline.
        clock: Monotonic clock in seconds.
        batch: Samples per call; recorded.
        threads: Threads of each side; recorded.
        waited: Seconds of ``clock`` so far for which a call could have run and had no core.
        schedule: Lengths of blocks and numbers of pairs.

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
        ratios = [_positive_seconds(candidate) / _positive_seconds(baseline) for candidate, baseline in pairs]
        ratio, low, high = median_ratio(ratios)
        if high - low <= schedule.tolerance * ratio or clock() - began > schedule.max_s:
            break
    of_candidate = [candidate for candidate, _ in pairs]
    of_baseline = [baseline for _, baseline in pairs]
    elapsed = np.array([np.median(block.elapsed) for block in of_candidate])
    return Measurement(
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        pairs=len(pairs),
        calls_per_block=int(np.median([len(block.times) for block in of_candidate])),
        batch=batch,
        threads=threads,
        candidate_ms=float(np.median([block.seconds for block in of_candidate])) * 1e3,
        baseline_ms=float(np.median([block.seconds for block in of_baseline])) * 1e3,
        spread=float(np.median(np.abs(elapsed - np.median(elapsed))) / np.median(elapsed)),
        candidate_p95_ms=_p95(of_candidate) * 1e3,
        baseline_p95_ms=_p95(of_baseline) * 1e3,
    )


def time_alone(
    copies: Sequence[Call],
    clock: Clock,
    *,
    waited: Clock = lambda: 0.0,
    schedule: Schedule = DEFAULT_SCHEDULE,
) -> float:
    """Seconds of one call: median over up to ``max_pairs`` blocks of the copies in turn.

    Raises:
        MeasurementFailed: When a block has no positive time, as by a clock that stands still or goes back.
    """
    times: list[float] = []
    began = clock()
    while len(times) < schedule.min_pairs or (
        len(times) < schedule.max_pairs and clock() - began <= schedule.max_s
    ):
        times.append(_positive_seconds(_block(copies[len(times) % len(copies)], clock, waited, schedule)))
    return float(np.median(times))


def median_ratio(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The median of ratios taken in alternating order, and its 95 % interval.

    The advantage of one order over the other is estimated (half the difference of the two orders'
    medians) and subtracted first; all in logarithms, so that swapping the two sides inverts the result.
    The interval lies between order statistics and assumes no distribution (binomial, as for the sign test).

    Args:
        ratios: Even number of positive ratios; those at even positions are of one order, the others of the
            other.

    Returns:
        Median of the ratios, lower and upper end of its interval.
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
    """Number of values to leave out on each side so that the rest covers the median at 95 %."""
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
    """Block of the candidate and block of the baseline; in even pairs the candidate goes first."""
    sides = (candidates[index % len(candidates)], baselines[index % len(baselines)])
    first, second = sides if index % 2 == 0 else sides[::-1]
    blocks = (_block(first, clock, waited, schedule), _block(second, clock, waited, schedule))
    return blocks if index % 2 == 0 else blocks[::-1]


def _block(call: Call, clock: Clock, waited: Clock, schedule: Schedule) -> Block:
    reads_waits = _warm_up(call, clock, schedule.settle_s) >= _SHORT_CALL_S
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


def _warm_up(call: Call, clock: Clock, least_s: float) -> float:
    """Call for at least ``least_s`` seconds and at least once; return the seconds of the shortest call."""
    shortest = math.inf
    began = before = clock()
    while True:
        call()
        now = clock()
        shortest = min(shortest, now - before)
        before = now
        if now - began >= least_s:
            return shortest


def _positive_seconds(block: Block) -> float:
    """Median time of a call in the block.

    Raises:
        MeasurementFailed: When it is no positive number.
    """
    if not (math.isfinite(block.seconds) and block.seconds > 0):
        raise MeasurementFailed(f"the clock gave {block.seconds:g} s for a call; measure again")
    return block.seconds


def _p95(blocks: Sequence[Block]) -> float:
    return float(np.percentile(np.concatenate([block.elapsed for block in blocks]), 95))
