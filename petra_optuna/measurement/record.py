"""Records of a measurement: one file against the baseline, and the baseline alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from petra_optuna.errors import MeasurementFailed
from petra_optuna.noise import Reading


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Time of a candidate against the baseline, from one run in which their blocks alternate.

    Attributes:
        ratio: Time of the candidate over time of the baseline; below 1 the candidate is faster.
        ratio_low, ratio_high: 95 % interval of the ratio (``interval.ratio_interval``).
        pairs: Number of pairs of blocks, one ratio each.
        calls_per_block: Median number of timed calls in a block of the candidate.
        batch: Samples per call.
        threads: Threads of each session.
        candidate_ms, baseline_ms: Median time of a call in this run.
        spread: Median absolute deviation of the candidate's times by the clock alone, as a share of their
            median; a high one means a busy machine.
        candidate_p95_ms, baseline_p95_ms: 95th percentile of all timed calls in this run. Unlike the ratio
            it includes what the rest of the machine did to single calls.
        foreign_cores: Mean number of cores that other processes kept busy meanwhile; None where not counted.
        runtime: Name and version of the runtime of the candidate; None where it was no file.

    Raises:
        MeasurementFailed: On construction, when the ratio or an end of its interval is not a positive number.
    """

    ratio: float
    ratio_low: float
    ratio_high: float
    pairs: int
    calls_per_block: int
    batch: int
    threads: int
    candidate_ms: float
    baseline_ms: float
    spread: float
    candidate_p95_ms: float
    baseline_p95_ms: float
    foreign_cores: float | None = None
    runtime: str | None = None

    def __post_init__(self) -> None:
        """Check that the ratio is one: a value that is none would be better and worse than any other."""
        if not all(math.isfinite(end) and end > 0 for end in (self.ratio, self.ratio_low, self.ratio_high)):
            raise MeasurementFailed(f"the measured ratio is {self.ratio:g}, which is no ratio; measure again")

    @property
    def reading(self) -> Reading:
        """The ratio and its error."""
        return Reading.of_interval(self.ratio, self.ratio_low, self.ratio_high)


@dataclasses.dataclass(frozen=True)
class Energy:
    """Energy of one sample against the baseline, from alternating blocks of the two.

    Attributes:
        ratio: Energy of the candidate over energy of the baseline; median over pairs of blocks.
        candidate_j, baseline_j: Joules of one sample in this run, with everything that the counter counts:
            the processor's idle power and other work as well.
        batch: Samples per call.
        pairs: Number of pairs of blocks.
        source: Name of the counter.
    """

    ratio: float
    candidate_j: float
    baseline_j: float
    batch: int
    pairs: int
    source: str


@dataclasses.dataclass(frozen=True)
class FileMeasurement:
    """Everything that the measuring process measures of one file.

    Attributes:
        latency: Measurement at the profile's latency batch.
        throughput: Measurement at each of the profile's throughput batches, in their order.
        peak_memory_bytes: Most memory that loading and running the file at the latency batch adds to a
            process; None where the system does not count it.
        energy: Energy at the first throughput batch; None where nothing counts it.
    """

    latency: Measurement
    throughput: tuple[Measurement, ...]
    peak_memory_bytes: int | None = None
    energy: Energy | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FileMeasurement:
        """Inverse of ``to_dict``."""
        return cls(
            latency=Measurement(**data["latency"]),
            throughput=tuple(Measurement(**item) for item in data["throughput"]),
            peak_memory_bytes=data["peak_memory_bytes"],
            energy=Energy(**data["energy"]) if data["energy"] else None,
        )


@dataclasses.dataclass(frozen=True)
class Baseline:
    """The original model in ONNX Runtime FP32 (on CUDA in PyTorch FP32), frozen in the study.

    Every candidate is measured as a ratio to it, in alternation with it; ``values`` turns the ratios into
    milliseconds, samples per second and joules that are comparable in the whole study.

    Attributes:
        latency_ms: Median time of one batch at the profile's latency batch.
        throughput_per_s: Throughput batch -> samples per second.
        peak_memory_bytes: Most memory that loading and running the file adds to a process, as in
            ``FileMeasurement``.
        energy_j: Joules of one sample; None where nothing counts them.
        energy_source: Name of the counter, or the reason why there is none.
    """

    latency_ms: float
    throughput_per_s: Mapping[int, float]
    peak_memory_bytes: int | None = None
    energy_j: float | None = None
    energy_source: str = ""

    def best(self, measured: FileMeasurement) -> Measurement:
        """The file's measurement at the batch size of its highest throughput."""
        return max(measured.throughput, key=self._per_second)

    def values(self, measured: FileMeasurement) -> dict[str, float]:
        """The file's values: its ratios times this baseline; what was not measured is left out."""
        values = {
            "latency_ms": measured.latency.ratio * self.latency_ms,
            "throughput_per_s": self._per_second(self.best(measured)),
        }
        if measured.peak_memory_bytes is not None:
            values["peak_memory_bytes"] = float(measured.peak_memory_bytes)
        if measured.energy is not None and self.energy_j is not None:
            values["energy_j"] = measured.energy.ratio * self.energy_j
        return values

    def readings(self, measured: FileMeasurement) -> dict[str, Reading]:
        """The file's latency and throughput, each with the error of its ratio, by the names of ``values``."""
        best = self.best(measured)
        rate = self.throughput_per_s[best.batch]
        latency, time = measured.latency.reading, best.reading
        return {
            "latency_ms": dataclasses.replace(latency, value=self.latency_ms * latency.value),
            "throughput_per_s": dataclasses.replace(time, value=rate / time.value),
        }

    def own_values(self) -> dict[str, float]:
        """The baseline's own values, by the names that ``values`` has."""
        values = {"latency_ms": self.latency_ms, "throughput_per_s": max(self.throughput_per_s.values())}
        if self.peak_memory_bytes is not None:
            values["peak_memory_bytes"] = float(self.peak_memory_bytes)
        if self.energy_j is not None:
            values["energy_j"] = self.energy_j
        return values

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` is its inverse."""
        return {
            **dataclasses.asdict(self),
            "throughput_per_s": {str(batch): rate for batch, rate in self.throughput_per_s.items()},
        }

    def at_best(self, others: Sequence[Baseline]) -> Baseline:
        """The best of several measurements of one file, value by value: other work only makes a file slower.

        Args:
            others: Other measurements of it on this machine, with the same profile. Memory is not of them.
        """
        several = (self, *others)
        return dataclasses.replace(
            self,
            latency_ms=min(one.latency_ms for one in several),
            throughput_per_s={
                batch: max(one.throughput_per_s[batch] for one in several) for batch in self.throughput_per_s
            },
            energy_j=min((one.energy_j for one in several if one.energy_j is not None), default=None),
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Baseline:
        """Inverse of ``to_dict``."""
        rates = {int(batch): float(rate) for batch, rate in data["throughput_per_s"].items()}
        return cls(**{**data, "throughput_per_s": rates})

    def _per_second(self, measurement: Measurement) -> float:
        return self.throughput_per_s[measurement.batch] / measurement.ratio
