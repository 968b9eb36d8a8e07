"""Response times of many requests in one record."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy.special import stdtrit

from petra_optuna.aliases import Array
from petra_optuna.noise import NORMAL_95, Reading

_GROWTH = 0.05
"""A queue grows when it adds more than this share of the run's length to the response time."""
_TENTH = 10


@dataclasses.dataclass(frozen=True)
class Response:
    """How long requests took from their arrival to their answer.

    Attributes:
        mean_ms: Mean response time in milliseconds, with its error over the repetitions.
        p50_ms: Median response time in milliseconds.
        p99_ms: 99th percentile of the response time in milliseconds.
        utilisation: Share of the time for which the server was busy.
        throughput_per_s: Samples answered in a second, from the first arrival to the last answer.
        served: Number of samples whose response times count.
        saturated: Whether requests arrive faster than they can be served: response times grow without end,
            and the percentiles say how long the run was.
    """

    mean_ms: Reading
    p50_ms: Reading
    p99_ms: Reading
    utilisation: float
    throughput_per_s: float
    served: int
    saturated: bool


@dataclasses.dataclass(frozen=True)
class Run:
    """What happened in some repetitions of one scenario.

    Attributes:
        response_s: Seconds from arrival to answer, shape (repetitions, samples), in order of arrival.
        busy_s: Seconds for which the server worked, shape (repetitions,).
        span_s: Seconds from the first arrival to the last answer, shape (repetitions,).
    """

    response_s: Array
    busy_s: Array
    span_s: Array

    def grows(self) -> bool:
        """Whether the last requests waited so much longer than the first ones that a queue grows."""
        count = max(self.response_s.shape[1] // _TENTH, 1)
        first, last = self.response_s[:, :count].mean(), self.response_s[:, -count:].mean()
        return bool(last - first > _GROWTH * self.span_s.mean())

    def summary(self, saturated: bool, warm_up: float = 0.0, blocks: int = 1) -> Response:
        """The run as a record.

        Args:
            saturated: Whether requests arrive faster than they can be served.
            warm_up: Share of each repetition at its beginning that does not count.
            blocks: Number of equal parts of each repetition that stand for repetitions of their own.
        """
        repetitions, samples = self.response_s.shape
        blocks = min(blocks, samples)
        length = (samples - int(warm_up * samples)) // blocks * blocks
        counted = self.response_s[:, samples - length :].reshape(repetitions * blocks, -1) * 1e3
        return Response(
            mean_ms=_reading(float(counted.mean()), counted.mean(axis=1)),
            p50_ms=_percentile(counted, 50),
            p99_ms=_percentile(counted, 99),
            utilisation=float(self.busy_s.sum() / self.span_s.sum()),
            throughput_per_s=float(self.response_s.size / self.span_s.sum()),
            served=counted.size,
            saturated=saturated,
        )


def _percentile(values: Array, share: float) -> Reading:
    """The percentile of all values, with the error that those of the repetitions show."""
    return _reading(float(np.percentile(values, share)), np.percentile(values, share, axis=1))


def _reading(value: float, repetitions: Array) -> Reading:
    """A value whose 95 % interval is Student's over the logarithms of the repetitions."""
    count = len(repetitions)
    if count < 2:
        return Reading(value)
    deviation = float(np.log(repetitions).std(ddof=1)) / math.sqrt(count)
    return Reading(value, deviation * float(stdtrit(count - 1, 0.975)) / NORMAL_95)
