"""What every runtime offers."""

from __future__ import annotations

import abc
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from petra_optuna.errors import UserError

ARITHMETIC = "petra:arithmetic"
"""Key of a file's own metadata: the type that its float arithmetic takes; FP32 where it is not there."""


class Session(Protocol):
    """A file, loaded and ready to run."""

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The file's outputs, first dimension the batch.

        Args:
            feeds: One array per input name, batch first, of any number of samples.

        Raises:
            RuntimeFailed: When the file does not run on these inputs.
        """


class Runtime(abc.ABC):
    """Opens files of one kind.

    In which precision a file computes follows from the file: from its operators, and for float arithmetic
    other than FP32 from its metadata (``ARITHMETIC``). A runtime's own defaults decide nothing.

    Class attributes:
        name: By which ``runtime`` finds it.
        package: The distribution that brings it.
        suffix: Of its files.
        extra: The extra of this package that installs it; None where it is always there.
        devices: That it serves where they are.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    suffix: ClassVar[str]
    extra: ClassVar[str | None] = None
    devices: ClassVar[tuple[str, ...]] = ("cpu",)

    @abc.abstractmethod
    def precisions(self, device: str = "cpu") -> tuple[str, ...]:
        """In which types files really compute on this machine's device; none where it has no such device."""

    @abc.abstractmethod
    def formats(self, device: str = "cpu") -> tuple[str, ...]:
        """Which conversions' files it runs as they promise; see ``Operation.format``."""

    def check_device(self, device: str) -> None:
        """Whether it serves the device, and the device is here.

        Raises:
            UserError: When not.
        """
        if device not in self.devices:
            raise UserError(f"runtime {self.name!r} runs on {' and '.join(self.devices)}, not on {device!r}")
        if not self.precisions(device):
            raise UserError(f"runtime {self.name!r} sees no {device} device here")

    @abc.abstractmethod
    def open(self, path: Path | bytes, threads: int, device: str = "cpu") -> Session:
        """Load a file.

        Args:
            path: The file, or its bytes.
            threads: With which one call computes, at most.
            device: One of ``devices``.

        Raises:
            RuntimeFailed: When the file cannot be loaded; one line with the reason.
            UserError: When the runtime does not serve the device.
        """

    @abc.abstractmethod
    def inspect(self, path: Path, device: str = "cpu") -> tuple[Session, Counter[str]]:
        """Load a file for one thread, and count the kernels of the graph that then runs, by name.

        ``deploy.checks`` knows the names of those that multiply with weights.

        Raises:
            RuntimeFailed: As ``open``.
        """

    def clock(self, device: str = "cpu") -> Callable[[], float]:
        """Seconds, monotonic, that hold all work given to the device; the host's clock by default."""
        return time.perf_counter

    def machine(self, device: str = "cpu") -> dict[str, Any]:
        """What a measurement on the device depends on besides the CPU and the runtime's version."""
        return {}
