"""What was measured of a file becomes its values on the scale of the frozen baseline."""

from __future__ import annotations

import dataclasses
import json

import pytest

from petra_optuna.errors import MeasurementFailed
from petra_optuna.measurement import Baseline, Energy, FileMeasurement, Measurement


def _measurement(ratio: float, batch: int) -> Measurement:
    return Measurement(ratio, ratio, ratio, 6, 10, batch, 1, 1.0, 1.0, 0.0, 1.0, 1.0)


MEASURED = FileMeasurement(
    latency=_measurement(0.5, 1),
    throughput=(_measurement(0.25, 8), _measurement(0.5, 64)),
    peak_memory_bytes=5000,
    energy=Energy(0.2, 1.0, 5.0, 8, 6, "RAPL, 1 package(s)"),
)


def test_the_best_batch_is_by_samples_per_second_not_by_ratio() -> None:
    """At batch 8 the file gains most, and is slower all the same."""
    baseline = Baseline(10.0, {8: 100.0, 64: 300.0}, 9000, 3.0)
    assert baseline.best(MEASURED).batch == 64
    assert baseline.values(MEASURED) == {
        "latency_ms": 5.0,
        "throughput_per_s": 600.0,
        "peak_memory_bytes": 5000.0,
        "energy_j": pytest.approx(0.6),
    }
    assert baseline.own_values() == {
        "latency_ms": 10.0,
        "throughput_per_s": 300.0,
        "peak_memory_bytes": 9000.0,
        "energy_j": 3.0,
    }


def test_what_is_not_measured_is_no_value() -> None:
    baseline = Baseline(10.0, {8: 100.0, 64: 300.0})
    bare = FileMeasurement(MEASURED.latency, MEASURED.throughput)
    assert set(baseline.values(bare)) == {"latency_ms", "throughput_per_s"} == set(baseline.own_values())


def test_round_trips_through_json() -> None:
    for measured in (MEASURED, FileMeasurement(MEASURED.latency, MEASURED.throughput)):
        assert FileMeasurement.from_dict(json.loads(json.dumps(measured.to_dict()))) == measured
    baseline = Baseline(10.0, {8: 100.0, 64: 300.0}, 9000, None, "no counter")
    assert Baseline.from_dict(json.loads(json.dumps(baseline.to_dict()))) == baseline


@pytest.mark.parametrize("field", ["ratio", "ratio_low", "ratio_high"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -0.5])
def test_a_ratio_that_is_none_is_no_measurement(field: str, value: float) -> None:
    measured = Measurement(0.5, 0.49, 0.51, 6, 9, 1, 1, 0.5, 1.0, 0.0, 0.5, 1.0)
    with pytest.raises(MeasurementFailed, match="no ratio; measure again"):
        dataclasses.replace(measured, **{field: value})
