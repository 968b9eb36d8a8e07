"""How requests that arrive in a scenario are best served by a file in its recommended setting."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from petra_optuna.inference.call_times import CallTimes
from petra_optuna.inference.objective import THROUGHPUT, inference_objective
from petra_optuna.inference.recommendation import Recommendation
from petra_optuna.inference.scenarios import PolicyRecommendation, Scenario, recommend
from petra_optuna.inference.tuner import InferenceTuner

_CALLS = 60
"""Measured calls of each batch size: enough for their spread."""


def recommend_policy(
    tuner: InferenceTuner,
    answer: Recommendation,
    scenario: Scenario,
    file: Path,
    feeds: Mapping[str, np.ndarray],
) -> PolicyRecommendation:
    """Measure calls of several batch sizes, and find batch size and wait with the least response time.

    Threads, cores and runtime are those of the recommendation; its batch size is for its own objective.

    Args:
        tuner: The tuner that made the recommendation.
        answer: Its recommendation.
        scenario: How requests arrive.
        file: The file.
        feeds: Sample inputs by name, batch first.

    Raises:
        UserError: When no policy keeps up with the requests; the text says what the limit is.
        MeasurementFailed: When the file cannot be run at a batch size.
    """
    seconds = {}
    timed = dataclasses.replace(tuner, objective=inference_objective(THROUGHPUT))  # energy is not asked for
    with timed.process(file, feeds) as process:
        for batch in _batches(tuner.max_batch):
            setting = dataclasses.replace(answer.setting, batch=batch)
            seconds[batch] = process.call_seconds(setting, _CALLS)
    return recommend(scenario, CallTimes(seconds), np.random.default_rng(tuner.seed))


def _batches(largest: int) -> list[int]:
    """Powers of two and the largest; what lies between is interpolated."""
    powers = [2**power for power in range(largest.bit_length())]
    return sorted({*powers, largest})
