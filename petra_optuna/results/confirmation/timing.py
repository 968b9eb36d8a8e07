"""Files timed again, in rounds over all of them, so that a slow minute of the machine hits no file alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from petra_optuna.errors import MeasurementFailed
from petra_optuna.evaluation import Measurer
from petra_optuna.measurement import Baseline, FileMeasurement, Measurement
from petra_optuna.results.confirmation.record import Estimate

_TIE, _TIE_AT_BATCH_1 = 0.03, 0.05


@dataclasses.dataclass(frozen=True)
class Timed:
    """Measurements by trial, one for each round, and why a file has none."""

    rounds: Mapping[int, list[FileMeasurement]]
    failures: Mapping[int, str]


def timed(
    files: Mapping[int, Path], measurer: Measurer, rounds: int, progress: Callable[[int], None]
) -> Timed:
    """Measure every file once a round; each round starts with another file.

    Args:
        files: By trial.
        measurer: Measures against the baseline.
        rounds: How often.
        progress: Called with the number of measurements done.
    """
    found: dict[int, list[FileMeasurement]] = {trial: [] for trial in files}
    failures: dict[int, str] = {}
    done = 0
    for turn in range(rounds):
        trials = list(files)
        start = turn * len(trials) // rounds
        for trial in trials[start:] + trials[:start]:
            if trial not in failures:
                try:
                    found[trial].append(measurer.measure(files[trial]))
                except MeasurementFailed as error:
                    failures[trial] = str(error)
            done += 1
            progress(done)
    return Timed(found, failures)


def estimates(rounds: list[FileMeasurement], baseline: Baseline) -> dict[str, Estimate]:
    """What was measured of one file, on the scale of the frozen baseline.

    Throughput is that at the batch size that is best over the rounds.
    """
    latency, base = ratio([measured.latency for measured in rounds]), baseline.latency_ms
    rates = [
        _rate(ratio(list(same)), baseline.throughput_per_s[same[0].batch])
        for same in zip(*(measured.throughput for measured in rounds), strict=True)
    ]
    found = {
        "latency_ms": Estimate(base * latency.value, base * latency.low, base * latency.high, latency.tie),
        "throughput_per_s": max(rates, key=lambda rate: rate.value),
    }
    values = [baseline.values(measured) for measured in rounds]
    for name in ("peak_memory_bytes", "energy_j"):
        if all(name in one for one in values):
            several = [one[name] for one in values]
            found[name] = Estimate(float(np.median(several)), min(several), max(several), _TIE)
    return found


def _rate(found: Estimate, base: float) -> Estimate:
    """Samples per second from a ratio of times."""
    return Estimate(base / found.value, base / found.high, base / found.low, found.tie)


def ratio(measured: list[Measurement]) -> Estimate:
    """Median of the rounds' ratios; from the lowest to the highest end of the rounds' own intervals.

    Each of these intervals is over pairs of blocks, so the whole is over rounds and pairs. It is wider than
    95 % need: three rounds tell little of how rounds differ.
    """
    return Estimate(
        value=float(np.median([item.ratio for item in measured])),
        low=min(item.ratio_low for item in measured),
        high=max(item.ratio_high for item in measured),
        tie=_TIE_AT_BATCH_1 if measured[0].batch == 1 else _TIE,
    )
