"""The interface of a runtime."""

from __future__ import annotations

import abc
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from petra_optuna.errors import UserError

ARITHMETIC = "petra:arithmetic"
"""Key in a file's metadata of the type of its float arithmetic, which is FP32 where the key is missing."""


class Session(Protocol):
    """A file, loaded and ready to run."""

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The file's outputs, first dimension the batch.

        Args:
            feeds: One array per input name, batch first, of any number of samples.

        Raises:
            RuntimeFailed: When the file does not run on these inputs.
        """


@dataclasses.dataclass(frozen=True)
class WeightedKernels:
    """Names of the kernels that multiply with weights; a runtime's other kernels promise nothing.

    Attributes:
        convolution: Convolutions in a float type.
        linear: Matrix products in a float type.
        recurrent: Recurrent layers in a float type.
        int8: Convolutions, matrix products and recurrent layers in INT8.
    """

    convolution: frozenset[str]
    linear: frozenset[str]
    recurrent: frozenset[str]
    int8: frozenset[str] = frozenset()

    @property
    def float(self) -> frozenset[str]:
        """Convolutions and matrix products in a float type."""
        return self.convolution | self.linear


def typed_kernels(kinds: Iterable[str], types: Iterable[str]) -> frozenset[str]:
    """Each kind in each type, ``Convolution.u8``: names of kernels that say what they compute in."""
    return frozenset(f"{kind}.{name}" for kind in kinds for name in types)


@dataclasses.dataclass(frozen=True)
class RunScript:
    """Lines of Python by which a script of the user's runs a file; ``run.py`` of an exported folder.

    Attributes:
        imports: Import of the runtime.
        load: Statements that make ``session`` and the list ``names`` of its inputs from the path ``file`` and
            the number ``threads``, 0 for the runtime's own choice.
        run: Expression for the outputs, given ``feeds``: one array per input name.
    """

    imports: str
    load: str
    run: str


class Runtime(abc.ABC):
    """Opens files of one kind.

    The file decides in which precision it computes: by its operators, and for float arithmetic other than
    FP32 by its metadata (``ARITHMETIC``). A runtime's own defaults decide nothing.

    Class attributes:
        name: Name by which ``runtime`` finds it.
        package: Distribution that brings it.
        suffix: Suffix of its files, with the dot.
        weighted: Names of its kernels that multiply with weights.
        extra: Extra of this package that installs it; None where it is always installed.
        devices: Kinds of devices that it serves where the machine has them.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    suffix: ClassVar[str]
    weighted: ClassVar[WeightedKernels]
    extra: ClassVar[str | None] = None
    devices: ClassVar[tuple[str, ...]] = ("cpu",)

    @abc.abstractmethod
    def precisions(self, device: str = "cpu") -> tuple[str, ...]:
        """Types in which files really compute on this machine's device; none where it has no such device."""

    @abc.abstractmethod
    def formats(self, device: str = "cpu") -> tuple[str, ...]:
        """Formats of the conversions whose files it runs as they promise; see ``Operation.format``."""

    def check_device(self, device: str) -> None:
        """Refuse a device that the runtime does not serve or this machine does not have.

        Raises:
            UserError: When it is such a device.
        """
        family, colon, number = device.partition(":")
        if family not in self.devices or (colon and not (family == "cuda" and number.isdecimal())):
            raise UserError(f"runtime {self.name!r} runs on {' and '.join(self.devices)}, not on {device!r}")
        if not self.precisions(family):
            raise UserError(f"runtime {self.name!r} sees no {family} device here")
        if number and int(number) >= self.gpus():
            last = self.gpus() - 1
            raise UserError(
                f"there is no {device} here: runtime {self.name!r} sees {last + 1} GPU(s), "
                f"{'cuda:0' if last == 0 else f'cuda:0 to cuda:{last}'}; give one of them"
            )

    @abc.abstractmethod
    def open(self, path: Path | bytes, threads: int, device: str = "cpu") -> Session:
        """Load a file.

        Args:
            path: The file, or its bytes.
            threads: Largest number of threads that one call computes with.
            device: One of ``devices``; ``cuda:N`` is GPU N, ``cuda`` the one that CUDA uses by itself.

        Raises:
            RuntimeFailed: When the file cannot be loaded; one line with the reason.
            UserError: When the runtime does not serve the device.
        """

    @abc.abstractmethod
    def inspect(self, path: Path, device: str = "cpu") -> tuple[Session, Counter[str]]:
        """Load a file for one thread, and count the kernels of the graph that then runs, by name.

        ``weighted`` lists the names of those that multiply with weights. The name of a kernel that computes
        in BF16 ends in ``.bf16``.

        Raises:
            RuntimeFailed: When the file cannot be loaded; one line with the reason.
        """

    @abc.abstractmethod
    def run_script(self, device: str = "cpu") -> RunScript:
        """How a script runs a file on the device, without this package where that is possible."""

    def clock(self, device: str = "cpu") -> Callable[[], float]:
        """A monotonic clock in seconds that counts all work given to the device; by default the host's."""
        return time.perf_counter

    def machine(self, device: str = "cpu") -> dict[str, Any]:
        """What a measurement depends on besides the CPU and the runtime's version, JSON-ready."""
        return {}

    def gpus(self) -> int:
        """Number of GPUs that it sees."""
        return 0

    def device_uuid(self, device: str = "cpu") -> str | None:
        """UUID by which the driver knows the GPU that sessions use; None on the CPU."""
        return None
