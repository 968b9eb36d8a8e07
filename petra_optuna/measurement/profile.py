"""What a measurement is for, and on which machine it was taken."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from petra_optuna.errors import StudyError

_INSTRUCTION_SETS = (
    "avx",
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""Flags of /proc/cpuinfo by which the runtime chooses kernels."""

_LIBRARIES = ("numpy", "onnxruntime", "torch", "torch-pruning")
"""Whose versions decide what a trial makes; their numbers are read without loading them."""


@dataclasses.dataclass(frozen=True)
class DeviceProfile:
    """A device and how it is used.

    Attributes:
        name: ``cpu``.
        threads: Of the session.
        latency_batch: Samples per call when latency is measured.
        throughput_batch: Samples per call when throughput is measured.

    Raises:
        StudyError: On construction, when a number is below 1 or the device is unknown.
    """

    name: str = "cpu"
    threads: int = 1
    latency_batch: int = 1
    throughput_batch: int = 64

    def __post_init__(self) -> None:
        """Check the values."""
        if self.name != "cpu":
            raise StudyError(f"unknown device {self.name!r}; this version measures on 'cpu'")
        for field in ("threads", "latency_batch", "throughput_batch"):
            if getattr(self, field) < 1:
                raise StudyError(f"{field} of a device must be at least 1, got {getattr(self, field)}")

    @classmethod
    def parse(cls, text: str) -> DeviceProfile:
        """Read ``cpu`` (one thread) or ``cpu:N`` (N threads).

        Raises:
            StudyError: When the text is neither, or this machine has fewer than N cores.
        """
        name, colon, number = text.partition(":")
        if colon and not number.isdecimal():
            raise StudyError(f"a device is 'cpu' or 'cpu:THREADS', for example cpu:2; got {text!r}")
        profile = cls(name=name, threads=int(number) if colon else 1)
        if profile.threads > available_cores():
            raise StudyError(f"device {text!r} asks for more threads than the {available_cores()} cores here")
        return profile

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DeviceProfile:
        """Inverse of ``to_dict``."""
        return cls(**data)

    @staticmethod
    def host() -> dict[str, Any]:
        """What a measurement depends on: CPU, instruction sets, cores, library versions."""
        model, flags = _cpu()
        return {
            "cpu": model,
            "instruction_sets": [flag for flag in _INSTRUCTION_SETS if flag in flags],
            "cores": available_cores(),
            **{name: metadata.version(name) for name in _LIBRARIES},
        }

    @classmethod
    def check_host(cls, recorded: Mapping[str, Any]) -> None:
        """Refuse to add measurements of another machine to a study.

        Args:
            recorded: What ``host`` returned where the study was made.

        Raises:
            StudyError: Naming each difference.
        """
        here = cls.host()
        differences = [
            f"{key} was {recorded.get(key)!r}, here {here[key]!r}"
            for key in here
            if recorded.get(key) != here[key]
        ]
        if differences:
            raise StudyError(
                f"the study was measured on another machine ({'; '.join(differences)}); "
                "start a new study here, or continue it where it was made"
            )


def available_cores() -> int:
    """Cores that this process may use, at least 1; a container may allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> tuple[str, frozenset[str]]:
    """Model name and flags of the processor."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine(), frozenset()
    fields: dict[str, str] = {}
    for line in info.read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    flags = fields.get("flags") or fields.get("features") or ""
    return fields.get("model name") or platform.machine(), frozenset(flags.split())
