"""How a file is used when it serves: samples per call, threads, cores and runtime."""

from __future__ import annotations

import dataclasses
from typing import Any

from petra_optuna.errors import UserError
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
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        cores = f"{self.cores} core{'s' if self.cores > 1 else ''}"
        return f"batch {self.batch}, {threads} on {cores}, {self.runtime}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``InferenceSetting(**fields)`` is its inverse."""
        return dataclasses.asdict(self)
