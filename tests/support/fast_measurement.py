"""Files are measured, but not long: for tests of something else than how exact a figure is.

``python -m support.fast_measurement`` is ``petra`` in another process, measuring so.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from support.shared_exports import quick_exporter

from petra_optuna import cli
from petra_optuna.deploy import lower
from petra_optuna.deploy.probe import Probe, probe
from petra_optuna.errors import LoweringFailed, RuntimeFailed
from petra_optuna.measurement import FileMeasurement, Measurement, MeasuringProcess, Schedule
from petra_optuna.measurement.machine_lock import MachineLock
from petra_optuna.runtimes import DEFAULT, OnnxRuntime
from petra_optuna.scratch import scratch_folder

SCHEDULE = Schedule(block_s=0.005, settle_s=0.001, min_pairs=4, max_pairs=4)


@contextlib.contextmanager
def own_lock() -> Iterator[None]:
    """Wait for no other process that measures on this machine: another worker of the tests, or a study."""
    name, *limits = MachineLock.__init__.__defaults__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MachineLock.__init__, "__defaults__", (f"{name}-{os.getpid()}", *limits))
        yield


@contextlib.contextmanager
def probes_here() -> Iterator[None]:
    """A file is opened for the first time in this process, not in one of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[lower.__module__], "probe", _probe_here)
        yield


@contextlib.contextmanager
def short_measurements() -> Iterator[None]:
    """Short blocks and few pairs; of the processes only the one that measures times is started."""
    with probes_here(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(MeasuringProcess, "_peak_memory", _size_of)
        patch.setitem(MeasuringProcess.__init__.__kwdefaults__, "schedule", SCHEDULE)
        patch.setattr("petra_optuna.study.baseline.EAGER_S", 0.01)
        yield


def _probe_here(
    data: bytes, feeds: Mapping[str, np.ndarray], *, runtime: str, device: str, timeout_s: float
) -> Probe:
    """What ``runtimes.inspect_file`` would report; in a process of its own for other runtimes."""
    if runtime != DEFAULT:
        return probe(data, feeds, runtime=runtime, device=device, timeout_s=timeout_s)
    with scratch_folder("probe") as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(data)
        try:
            session, kernels = OnnxRuntime().inspect(path, device)
            outputs = session.run(feeds)
        except RuntimeFailed as error:
            raise LoweringFailed(f"{runtime} fails on the file: {error}") from error
    return Probe(kernels, finite=all(bool(np.isfinite(output).all()) for output in outputs))


_peak_memory = MeasuringProcess._peak_memory


def _size_of(process: MeasuringProcess, path: Path, runtime: str, limit: int | None) -> int | None:
    """Bytes of the file; the memory that it really takes under a limit."""
    return path.stat().st_size if limit is None else _peak_memory(process, path, runtime, limit)


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
    with own_lock(), quick_exporter(), short_measurements():
        cli.main()
