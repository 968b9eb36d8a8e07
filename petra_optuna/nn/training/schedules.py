"""Learning-rate schedules as pure functions of progress."""

from __future__ import annotations

import math

WARM_UP_SHARE = 0.3
START_FACTOR = 1 / 25


def schedule_factor(schedule: str, progress: float) -> float:
    """What the peak learning rate is multiplied by.

    Args:
        schedule: ``constant``; ``cosine``, from 1 down to 0; ``one_cycle``, up from 1/25 to 1 over the
            first 30 % and down to 0 after, both along a cosine (Smith and Topin, arXiv 1708.07120).
        progress: Steps taken over steps in all, 0 to 1.

    Raises:
        ValueError: When the schedule is unknown.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return _half_cosine(progress)
    if schedule == "one_cycle":
        if progress < WARM_UP_SHARE:
            return 1.0 - (1.0 - START_FACTOR) * _half_cosine(progress / WARM_UP_SHARE)
        return _half_cosine((progress - WARM_UP_SHARE) / (1.0 - WARM_UP_SHARE))
    raise ValueError(f"unknown schedule {schedule!r}; known: constant, cosine, one_cycle")


def _half_cosine(share: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * share))
