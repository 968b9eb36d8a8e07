"""What is known after a measurement."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A candidate against the baseline, from one interleaved run.

    Attributes:
        ratio: Time of the candidate over time of the baseline; below 1 the candidate is faster.
        ratio_low, ratio_high: 95 % interval of the median ratio.
        pairs: Pairs of blocks, one ratio each.
        calls_per_block: Median number of timed calls in a block of the candidate.
        batch: Samples per call.
        threads: Of both sessions.
        candidate_ms, baseline_ms: Median time of a call in this very run.
        spread: Median absolute deviation of the candidate's plain times, as a share of their median;
            a high one tells of a busy machine.
        candidate_p95_ms, baseline_p95_ms: 95th percentile of all timed calls in this very run. Unlike the
            ratio it holds what the rest of the machine did to single calls.
        foreign_cores: Cores that were busy with other things meanwhile, in the mean; None where not counted.
        runtime: Name and version of what ran the candidate; None where it was no file.
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

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Energy:
    """What one sample costs, from blocks of the candidate and of the baseline in turn.

    Attributes:
        ratio: Of the candidate's energy to the baseline's; median over pairs of blocks.
        candidate_j, baseline_j: Joules for one sample in this very run, everything included that the counter
            counts: the processor's idle power and other work as well.
        batch: Samples per call.
        pairs: Pairs of blocks.
        source: What counted.
    """

    ratio: float
    candidate_j: float
    baseline_j: float
    batch: int
    pairs: int
    source: str


@dataclasses.dataclass(frozen=True)
class FileMeasurement:
    """All that the measuring process finds out about one file.

    Attributes:
        latency: At the profile's latency batch.
        throughput: One for each of the profile's throughput batches, in their order.
        peak_memory_bytes: What loading and running the file at the latency batch adds to a process, at its
            highest; None where the system does not tell.
        energy: At the first throughput batch; None where nothing counts it.
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
    """The original in ONNX Runtime FP32, measured once and frozen in the study.

    Attributes:
        latency_ms: Median time of one batch at the profile's latency batch.
        throughput_per_s: Samples per second by throughput batch.
        peak_memory_bytes: As ``FileMeasurement.peak_memory_bytes``.
        energy_j: Of one sample; None where nothing counts it.
        energy_source: What counts it, or why nothing does.
    """

    latency_ms: float
    throughput_per_s: Mapping[int, float]
    peak_memory_bytes: int | None = None
    energy_j: float | None = None
    energy_source: str = ""

    def best(self, measured: FileMeasurement) -> Measurement:
        """The file's throughput measurement at the batch size that serves it best."""
        return max(measured.throughput, key=self._per_second)

    def values(self, measured: FileMeasurement) -> dict[str, float]:
        """The file's values on the scale of this baseline; what was not measured is left out."""
        values = {
            "latency_ms": measured.latency.ratio * self.latency_ms,
            "throughput_per_s": self._per_second(self.best(measured)),
        }
        if measured.peak_memory_bytes is not None:
            values["peak_memory_bytes"] = float(measured.peak_memory_bytes)
        if measured.energy is not None and self.energy_j is not None:
            values["energy_j"] = measured.energy.ratio * self.energy_j
        return values

    def own_values(self) -> dict[str, float]:
        """The baseline's values by the names of ``values``."""
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

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Baseline:
        """Inverse of ``to_dict``."""
        rates = {int(batch): float(rate) for batch, rate in data["throughput_per_s"].items()}
        return cls(**{**data, "throughput_per_s": rates})

    def _per_second(self, measurement: Measurement) -> float:
        return self.throughput_per_s[measurement.batch] / measurement.ratio
