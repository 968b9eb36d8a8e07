"""Timing files again, in rounds over all of them, so that a slow minute of the machine hits no file alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from petra_optuna.errors import MeasurementFailed
from petra_optuna.measurement import Baseline, FileMeasurement, Measurement, Measurer
from petra_optuna.results.confirmation.record import Estimate

_TIE, _TIE_AT_BATCH_1 = 0.03, 0.05


@dataclasses.dataclass(frozen=True)
class Timings:
    """Repeated measurements of files.

    Attributes:
        rounds: Measurements by trial, one for each round.
        failures: Why a file has none, by trial.
    """

    rounds: Mapping[int, list[FileMeasurement]]
    failures: Mapping[int, str]


def time_files(
    files: Mapping[int, Path], measurer: Measurer, rounds: int, progress: Callable[[int], None]
) -> Timings:
    """Measure every file once in each round; each round starts with another file.

    Args:
        files: Files by trial.
        measurer: Measures a file against the baseline.
        rounds: Number of rounds.
        progress: Called with the number of measurements done.
    """
    measurements: dict[int, list[FileMeasurement]] = {trial: [] for trial in files}
    failures: dict[int, str] = {}
    done = 0
    for turn in range(rounds):
        trials = list(files)
        start = turn * len(trials) // rounds
        for trial in trials[start:] + trials[:start]:
            if trial not in failures:
                try:
                    measurements[trial].append(measurer.measure(files[trial]))
                except MeasurementFailed as error:
                    failures[trial] = str(error)
            done += 1
            progress(done)
    return Timings(measurements, failures)


def estimates(rounds: list[FileMeasurement], baseline: Baseline) -> dict[str, Estimate]:
    """What was measured of one file in all rounds, on the scale of the frozen baseline.

    Throughput is taken at the batch size that is best over the rounds.
    """
    latency, base = ratio([measured.latency for measured in rounds]), baseline.latency_ms
    rates = [
        _rate(ratio(list(same)), baseline.throughput_per_s[same[0].batch])
        for same in zip(*(measured.throughput for measured in rounds), strict=True)
    ]
    values = {
        "latency_ms": Estimate(base * latency.value, base * latency.low, base * latency.high, latency.tie),
        "throughput_per_s": max(rates, key=lambda rate: rate.value),
    }
    by_round = [baseline.values(measured) for measured in rounds]
    for name in ("peak_memory_bytes", "energy_j"):
        if all(name in of_round for of_round in by_round):
            several = [of_round[name] for of_round in by_round]
            values[name] = Estimate(float(np.median(several)), min(several), max(several), _TIE)
    return values


def _rate(times: Estimate, base: float) -> Estimate:
    """Samples per second from a ratio of times."""
    return Estimate(base / times.value, base / times.high, base / times.low, times.tie)


def ratio(measured: list[Measurement]) -> Estimate:
    """Median of the rounds' ratios, with the interval that holds the intervals of all rounds.

    Each round's interval is over pairs of blocks, so the whole is over rounds and pairs. It is wider than
    95 % need: three rounds tell little of how rounds differ.
    """
    return Estimate(
        value=float(np.median([item.ratio for item in measured])),
        low=min(item.ratio_low for item in measured),
        high=max(item.ratio_high for item in measured),
        tie=_TIE_AT_BATCH_1 if measured[0].batch == 1 else _TIE,
    )
