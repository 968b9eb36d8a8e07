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

The place of a session in memory makes it a few percent faster or slower for all its life. So both sides come
as many copies, and each pair takes the next: what differs from session to session is within the interval.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from petra_optuna.errors import MeasurementFailed
from petra_optuna.measurement.interval import LEAST_RATIOS, ratio_interval
from petra_optuna.measurement.record import Measurement

Call = Callable[[], object]
Clock = Callable[[], float]
_SHORT_CALL_S = 0.0003
"""Calls shorter than this keep their waits, which the median passes over: reading them takes some 3 us."""
_LONG_CALL_S = 1.0
"""Calls longer than this need no call before them: refilling the caches takes milliseconds."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two functions that are compared.

    Attributes:
        copies: Functions that each run one batch, one for each pair of blocks; it does not end.
        call_s: About how many seconds a call takes.
    """

    copies: Iterator[Call]
    call_s: float


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Length of a block, and when there are enough pairs of blocks.

    Attributes:
        block_s: Least timed seconds of a block; a block has at least one call.
        settle_s: Least seconds of untimed calls at the start of each block. There is at least one, unless
            calls take over a second.
        min_pairs, max_pairs: Bounds on the number of pairs, both even: both orders occur equally often.
        tolerance: Share of the ratio; measuring stops once its interval is narrower.
        max_s: Seconds after which four pairs are enough: calls of seconds are not noisy.
    """

    block_s: float = 0.025
    settle_s: float = 0.005
    min_pairs: int = 12
    max_pairs: int = 30
    tolerance: float = 0.03
    max_s: float = 10.0

    def __post_init__(self) -> None:
        """Check the numbers of pairs."""
        least, most = self.min_pairs, self.max_pairs
        if least % 2 or most % 2 or not LEAST_RATIOS <= least <= most:
            raise ValueError(
                f"min_pairs and max_pairs must be even and {LEAST_RATIOS} <= min <= max, "
                f"got {least} and {most}"
            )

    def is_enough(self, pairs: int, seconds: float) -> bool:
        """Whether so many pairs, after so many seconds, may be the last ones."""
        return pairs >= (LEAST_RATIOS if seconds > self.max_s else self.min_pairs) and pairs % 2 == 0

    def expected_s(self, *call_s: float) -> float:
        """Most seconds of measuring that is to be expected of sides with calls of these lengths."""
        round_s = sum(
            max(self.block_s, seconds) + (max(self.settle_s, seconds) if seconds < _LONG_CALL_S else 0.0)
            for seconds in call_s
        )
        return min(self.max_pairs * round_s, max(self.max_s, LEAST_RATIOS * round_s) + 2 * round_s)


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
        """Median time of a call.

        Raises:
            MeasurementFailed: When it is no positive number.
        """
        seconds = float(np.median(self.times))
        if not (math.isfinite(seconds) and seconds > 0):
            raise MeasurementFailed(f"the clock gave {seconds:g} s for a call; measure again")
        return seconds


def compare(
    candidate: Side,
    baseline: Side,
    clock: Clock,
    *,
    batch: int,
    threads: int,
    waited: Clock = lambda: 0.0,
    schedule: Schedule = DEFAULT_SCHEDULE,
) -> Measurement:
    """Measure a candidate against the baseline.

    Args:
        candidate: The candidate.
        baseline: What it is compared with.
        clock: Monotonic clock in seconds.
        batch: Samples per call; recorded.
        threads: Threads of each side; recorded.
        waited: Seconds of ``clock`` so far for which a call could have run and had no core.
        schedule: Lengths of blocks and numbers of pairs.

    Raises:
        MeasurementFailed: When a block has no positive time, as by a clock that stands still or goes back.
    """
    sides = (candidate, baseline)
    blocks: tuple[list[Block], list[Block]] = ([], [])
    began = clock()
    ratio = low = high = math.nan
    for pair in range(1, schedule.max_pairs + 1):
        for index in (0, 1) if pair % 2 else (1, 0):
            blocks[index].append(_block(sides[index], clock, waited, schedule))
        if not schedule.is_enough(pair, clock() - began):
            continue
        ratios = [first.seconds / second.seconds for first, second in zip(*blocks, strict=True)]
        ratio, low, high = ratio_interval(ratios)
        if high - low <= schedule.tolerance * ratio or clock() - began > schedule.max_s:
            break
    of_candidate, of_baseline = blocks
    elapsed = np.array([np.median(block.elapsed) for block in of_candidate])
    return Measurement(
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        pairs=len(of_candidate),
        calls_per_block=int(np.median([len(block.times) for block in of_candidate])),
        batch=batch,
        threads=threads,
        candidate_ms=_median_seconds(of_candidate) * 1e3,
        baseline_ms=_median_seconds(of_baseline) * 1e3,
        spread=float(np.median(np.abs(elapsed - np.median(elapsed))) / np.median(elapsed)),
        candidate_p95_ms=_p95(of_candidate) * 1e3,
        baseline_p95_ms=_p95(of_baseline) * 1e3,
    )


def time_alone(
    side: Side,
    clock: Clock,
    *,
    waited: Clock = lambda: 0.0,
    schedule: Schedule = DEFAULT_SCHEDULE,
) -> float:
    """Seconds of one call: median over ``max_pairs`` blocks of the copies in turn, or fewer long ones.

    Raises:
        MeasurementFailed: When a block has no positive time, as by a clock that stands still or goes back.
    """
    blocks: list[Block] = []
    began = clock()
    while len(blocks) < schedule.max_pairs:
        blocks.append(_block(side, clock, waited, schedule))
        if clock() - began > schedule.max_s and schedule.is_enough(len(blocks), clock() - began):
            break
    return _median_seconds(blocks)


def _block(side: Side, clock: Clock, waited: Clock, schedule: Schedule) -> Block:
    call = next(side.copies)
    _settle(call, side.call_s, clock, schedule.settle_s)
    reads_waits = side.call_s >= _SHORT_CALL_S
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


def _settle(call: Call, call_s: float, clock: Clock, least_s: float) -> None:
    """Call for at least ``least_s`` seconds and at least once, unless a call takes very long."""
    if call_s >= _LONG_CALL_S:
        return
    began = clock()
    call()
    while clock() - began < least_s:
        call()


def _median_seconds(blocks: Sequence[Block]) -> float:
    return float(np.median([block.seconds for block in blocks]))


def _p95(blocks: Sequence[Block]) -> float:
    return float(np.percentile(np.concatenate([block.elapsed for block in blocks]), 95))
