"""What is known after a measurement."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A candidate against the yardstick, from one interleaved run.

    Attributes:
        ratio: Time of the candidate over time of the yardstick; below 1 the candidate is faster.
        ratio_low, ratio_high: 95 % interval of the median ratio.
        pairs: Pairs of blocks, one ratio each.
        calls_per_block: Median number of timed calls in a block of the candidate.
        batch: Samples per call.
        threads: Of both sessions.
        candidate_ms, yardstick_ms: Median time of a call in this very run.
        spread: Median absolute deviation of the candidate's plain times, as a share of their median;
            a high one tells of a busy machine.
        candidate_p95_ms, yardstick_p95_ms: 95th percentile of all timed calls in this very run. Unlike the
            ratio it holds what the rest of the machine did to single calls.
        foreign_cores: Cores that were busy with other things meanwhile, in the mean; None where not counted.
        runtime: Name and version of what ran the candidate; None where it was no file.
    """

    ratio: float
    ratio_low: float
    ratio_high: float
    pairs: int
    calls_per_block: int
    batch: int
    threads: int
    candidate_ms: float
    yardstick_ms: float
    spread: float
    candidate_p95_ms: float
    yardstick_p95_ms: float
    foreign_cores: float | None = None
    runtime: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dataclasses.asdict(self)
