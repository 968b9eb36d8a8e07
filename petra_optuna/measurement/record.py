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

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dataclasses.asdict(self)
