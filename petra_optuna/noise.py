"""Values that are measured with an error: readings of one quantity pooled, and ties between quantities.

Errors are relative: measured values are positive and their noise grows with them, so all is done in
logarithms. Readings are pooled by weights: each counts by the inverse of its own variance and of the variance
between readings, which is what repeated readings of one file were found to have. Where readings differ by
more than that explains, the error of the pool is scaled up by how much more (Birge 1932).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

NORMAL_95 = 1.959964
"""Half the width of a normal distribution's 95 % interval, in standard deviations."""
BETWEEN_READINGS = 0.013
"""Least standard deviation of the logarithm between readings, each with sessions of its own."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """A positive value that was measured, and how well it is known.

    Attributes:
        value: Measured value, positive.
        error: Standard error of its logarithm; 0 for a value that is known exactly.
    """

    value: float
    error: float = 0.0

    @classmethod
    def of_interval(cls, value: float, low: float, high: float) -> Reading:
        """A value with its 95 % interval, low and high positive."""
        return cls(value, math.log(high / low) / (2 * NORMAL_95))

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.value * math.exp(-NORMAL_95 * self.error)

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.value * math.exp(NORMAL_95 * self.error)

    @property
    def uncertainty(self) -> float:
        """Half the width of the 95 % interval, as a share of the value."""
        return math.expm1(NORMAL_95 * self.error)


def pooled(readings: Sequence[Reading]) -> Reading:
    """One value from at least one reading of the same quantity.

    Args:
        readings: Readings, each with the error that it found within itself.
    """
    if len(readings) == 1:  # to the last bit
        (only,) = readings
        return Reading(only.value, math.hypot(only.error, BETWEEN_READINGS))
    logs = [math.log(reading.value) for reading in readings]
    weights = [1 / (reading.error**2 + BETWEEN_READINGS**2) for reading in readings]
    total = math.fsum(weights)
    mean = math.fsum(weight * log for weight, log in zip(weights, logs, strict=True)) / total
    squares = math.fsum(weight * (log - mean) ** 2 for weight, log in zip(weights, logs, strict=True))
    return Reading(math.exp(mean), math.sqrt(max(1.0, squares / (len(readings) - 1)) / total))
