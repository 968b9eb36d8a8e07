"""Files are measured, but not long: for tests of something else than how exact a figure is.

``python -m support.fast_measurement`` is ``petra`` in another process, measuring so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from petra_optuna import cli
from petra_optuna.measurement import FileMeasurement, Measurement, MeasuringProcess, Schedule

SCHEDULE = Schedule(block_s=0.005, settle_s=0.001, min_pairs=4, max_pairs=4)


@contextlib.contextmanager
def short_measurements() -> Iterator[None]:
    """Short blocks and few pairs, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MeasuringProcess.__init__.__kwdefaults__, "schedule", SCHEDULE)
        patch.setattr("petra_optuna.study.baseline.EAGER_S", 0.01)
        yield


class BySize:
    """A measurer whose ratios follow the file's size, so that results are exact."""

    def measure(self, path: Path) -> FileMeasurement:
        ratio = path.stat().st_size / 1e5
        common = {"pairs": 1, "calls_per_block": 1, "threads": 1, "spread": 0.0, "baseline_p95_ms": 1.0}
        latency, *throughput = (
            Measurement(
                ratio=ratio * factor,
                ratio_low=ratio,
                ratio_high=ratio,
                batch=batch,
                candidate_ms=ratio,
                baseline_ms=1.0,
                candidate_p95_ms=ratio,
                **common,
            )
            for factor, batch in ((1.0, 1), (4.0, 16), (2.0, 64))
        )
        return FileMeasurement(latency, tuple(throughput), peak_memory_bytes=path.stat().st_size)


if __name__ == "__main__":
    with short_measurements():
        cli.main()
