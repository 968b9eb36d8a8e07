"""One shape, one latency: files of the same graph share what is measured of them.

Every measurement of a file is a reading of its shape. A shape that is known well enough is not measured
again; one whose interval stayed wide, on a busy machine for example, is measured again when it comes again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import statistics
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from petra_optuna.errors import MeasurementFailed
from petra_optuna.files import write_cached
from petra_optuna.measurement.record import Baseline, FileMeasurement
from petra_optuna.measurement.shape import shape_signature
from petra_optuna.noise import Reading, pooled

TOLERANCE = 0.03
"""A value is known well enough once half its 95 % interval is no more than this share of it."""
_READING, _BASELINE = ".reading", ".baseline"
_Record = TypeVar("_Record")


class Measurer(Protocol):
    """What is needed of the measuring process."""

    def measure(self, path: Path) -> FileMeasurement:
        """Measure the file against the baseline."""


@dataclasses.dataclass(frozen=True)
class ShapeMeasurement:
    """What is known of the speed of a file by all readings of its shape.

    Attributes:
        shape: Signature of the shape.
        readings: Measurements by their unique names, at least one.
        taken: Number of these that were taken for this file; 0 where the shape was known well enough.
        baseline: Scale of the measurements.
    """

    shape: str
    readings: Mapping[str, FileMeasurement]
    taken: int
    baseline: Baseline

    @property
    def values(self) -> dict[str, float]:
        """All values of the file by name; what was not measured is left out."""
        several = [self.baseline.values(one) for one in self.readings.values()]
        names = dict.fromkeys(name for values in several for name in values)
        medians = {
            name: statistics.median(values[name] for values in several if name in values) for name in names
        }
        speed = _pooled(self.baseline, self.readings.values())
        return medians | {name: one.value for name, one in speed.items()}

    @property
    def known(self) -> dict[str, dict[str, Reading]]:
        """Latency and throughput with their errors, by name, of each reading by its unique name."""
        return {name: self.baseline.readings(one) for name, one in self.readings.items()}

    @property
    def recommendation(self) -> Mapping[str, Any] | None:
        """How the file is served, JSON-ready, where latency and throughput are those of serving it so."""
        return None

    @property
    def narrowest(self) -> FileMeasurement:
        """The measurement with the narrowest interval of the latency."""
        return min(self.readings.values(), key=lambda one: one.latency.ratio_high / one.latency.ratio_low)


@dataclasses.dataclass(frozen=True)
class ShapeStore:
    """Readings of shapes, and of baselines alone, in a folder that studies share; one small file each.

    Attributes:
        folder: Folder with one folder for each shape.
    """

    folder: Path

    @classmethod
    def in_cache(cls, cache: Path) -> ShapeStore:
        """The store of all studies that share a cache folder."""
        return cls(cache / "shapes")

    def get(self, shape: str) -> dict[str, FileMeasurement]:
        """Readings of a shape by their unique names; files that are damaged are left out."""
        return self._read(shape, _READING, FileMeasurement.from_dict)

    def put(self, shape: str, name: str, measured: FileMeasurement) -> None:
        """Keep a reading.

        Raises:
            StudyError: When the folder cannot be written, for example because the disk is full.
        """
        self._write(shape, f"{name}{_READING}", measured.to_dict())

    def best_baseline(self, shape: str, measured: Baseline) -> Baseline:
        """The best of this measurement of a baseline and of earlier ones; this one is kept too.

        Args:
            shape: Signature of the baseline's file.
            measured: What was measured of it now.

        Raises:
            StudyError: When the folder cannot be written, for example because the disk is full.
        """
        earlier = self._read(shape, _BASELINE, Baseline.from_dict)
        self._write(shape, f"{uuid.uuid4().hex}{_BASELINE}", measured.to_dict())
        return measured.at_best(list(earlier.values()))

    def _read(
        self, shape: str, suffix: str, read: Callable[[Mapping[str, Any]], _Record]
    ) -> dict[str, _Record]:
        records = {}
        for file in sorted((self.folder / shape).glob(f"*{suffix}")):
            # A file may be read while it goes, or not be ours.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, MeasurementFailed):
                records[file.stem] = read(json.loads(file.read_text(encoding="utf-8")))
        return records

    def _write(self, shape: str, name: str, record: Mapping[str, Any]) -> None:
        write_cached(self.folder / shape / name, json.dumps(record).encode())


@dataclasses.dataclass(frozen=True)
class ShapeMeasurer:
    """Measures files, those excepted whose shape is known well enough.

    Attributes:
        process: Measures a file against the baseline.
        baseline: Scale of the measurements.
        store: Readings taken before; None for none.
        setting: What a latency depends on besides the file (``shape_signature``).
    """

    process: Measurer
    baseline: Baseline
    store: ShapeStore | None = None
    setting: object = None

    def measure(self, file: Path) -> ShapeMeasurement:
        """Measure an ONNX file, or find what is known of its shape.

        Raises:
            MeasurementFailed: When the file cannot be read or run, and nothing is known of its shape.
        """
        shape = shape_signature(file, self.setting)
        readings = self.store.get(shape) if self.store else {}
        if self._is_known(readings):
            return ShapeMeasurement(shape, readings, 0, self.baseline)
        try:
            measured = self.process.measure(file)
        except MeasurementFailed:
            if not readings:
                raise
            return ShapeMeasurement(shape, readings, 0, self.baseline)
        name = uuid.uuid4().hex
        if self.store is not None:
            self.store.put(shape, name, measured)
        return ShapeMeasurement(shape, {**readings, name: measured}, 1, self.baseline)

    def _is_known(self, readings: Mapping[str, FileMeasurement]) -> bool:
        """Whether latency and throughput are known well enough."""
        if not readings:
            return False
        speed = _pooled(self.baseline, readings.values())
        return all(one.uncertainty <= TOLERANCE for one in speed.values())


def _pooled(baseline: Baseline, measurements: Iterable[FileMeasurement]) -> dict[str, Reading]:
    """Latency and throughput of a shape with their errors, by name."""
    several = [baseline.readings(one) for one in measurements]
    return {name: pooled([readings[name] for readings in several]) for name in several[0]}
