"""How a file is used when it serves, and what it takes then."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from petra_optuna.errors import UserError
from petra_optuna.measurement.record import Measurement
from petra_optuna.runtimes import DEFAULT, check_name


@dataclasses.dataclass(frozen=True, order=True)
class InferenceSetting:
    """How a file is used when it serves.

    Attributes:
        batch: Samples per call.
        threads: Threads of a session.
        cores: Cores that the process may use, at least ``threads``.
        runtime: Name of the runtime, in ``petra_optuna.runtimes``.

    Raises:
        UserError: On construction, when a value is out of range.

    Example:
        >>> InferenceSetting(batch=8, threads=1, cores=2).describe()
        'batch 8, 1 thread on 2 cores, onnxruntime'
    """

    batch: int = 1
    threads: int = 1
    cores: int = 1
    runtime: str = DEFAULT

    def __post_init__(self) -> None:
        """Check the values."""
        for field in ("batch", "threads", "cores"):
            if getattr(self, field) < 1:
                raise UserError(f"`{field}` of an inference setting must be at least 1")
        if self.threads > self.cores:
            raise UserError(
                f"an inference setting has {self.threads} threads on {self.cores} cores; "
                "give at most one thread a core"
            )
        check_name(self.runtime)

    def describe(self) -> str:
        """The setting in words."""
        threads, cores = _count(self.threads, "thread"), _count(self.cores, "core")
        return f"batch {self.batch}, {threads} on {cores}, {self.runtime}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``InferenceSetting(**fields)`` is its inverse."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class SettingMeasurement:
    """What a file takes in a setting, against the same file at batch 1 with one thread: its anchor.

    The ratio to the anchor does not depend on how fast the machine was meanwhile; the anchor's own time is
    measured while nothing else runs.

    Attributes:
        setting: The setting.
        call: Time of a call against a call of the anchor.
        energy_j: Joules of one sample; None where nothing counts them or nobody asked.
        energy_source: Name of what counted or estimated them; empty where nobody asked.
    """

    setting: InferenceSetting
    call: Measurement
    energy_j: float | None = None
    energy_source: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SettingMeasurement:
        """Inverse of ``to_dict``."""
        return cls(
            setting=InferenceSetting(**data["setting"]),
            call=Measurement(**data["call"]),
            energy_j=data["energy_j"],
            energy_source=data["energy_source"],
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"
