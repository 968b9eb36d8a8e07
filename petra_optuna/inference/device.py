"""Devices that files are served on, emulated by cores, threads and a limit of memory."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from petra_optuna.errors import UserError, one_line
from petra_optuna.measurement import available_cores
from petra_optuna.runtimes import DEFAULT, runtime

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class EdgeDevice:
    """A device that serves a file, emulated on this machine.

    Cores are emulated by affinity and memory by a limit on the measuring process. The speed of a core is
    that of this machine: ratios between settings carry over, milliseconds do not.

    Attributes:
        name: Name that outputs show.
        cores: Cores of the device.
        memory_bytes: Memory for loading and running a file; None for no limit.
        runtimes: Names of the runtimes that may serve.
        device: ``cpu`` or ``cuda:N``.
        capped_from: Cores of the device where this machine has fewer, and ``cores`` is what it has.

    Raises:
        UserError: On construction, when a value is out of range or a runtime unknown.

    Example:
        >>> EdgeDevice("mine", cores=2, memory_bytes=2**30).describe()
        'mine (2 cores, 1.0 GiB)'
    """

    name: str
    cores: int
    memory_bytes: int | None = None
    runtimes: tuple[str, ...] = (DEFAULT,)
    device: str = "cpu"
    capped_from: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        for field in ("cores", "memory_bytes"):
            value = getattr(self, field)
            if value is None and field == "memory_bytes":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(
                    f"`{field}` of device {self.name!r} must be a whole number of at least 1, got {value!r}"
                )
        if not self.runtimes or isinstance(self.runtimes, str):
            raise UserError(f"`runtimes` of device {self.name!r} must be a list of at least one runtime")
        object.__setattr__(self, "runtimes", tuple(dict.fromkeys(self.runtimes)))
        for name in self.runtimes:
            runtime(name).check_device(self.device)

    def on(self, cores: int, *, cap: bool = True) -> EdgeDevice:
        """The device with no more cores than there are here.

        Args:
            cores: Cores that may emulate it.
            cap: Whether a device with more cores is capped.

        Raises:
            UserError: When it has more cores and may not be capped.
        """
        if self.cores <= cores:
            return self
        if not cap:
            raise UserError(
                f"device {self.name!r} has {self.cores} cores, this machine has {cores} for it; "
                "`cap` emulates it with fewer"
            )
        return dataclasses.replace(self, cores=cores, capped_from=self.capped_from or self.cores)

    def describe(self) -> str:
        """Name, cores and memory; a cap is said."""
        cores = f"{self.cores} core{'s' if self.cores > 1 else ''}"
        if self.capped_from is not None:
            cores += f", capped: the device has {self.capped_from}"
        memory = "" if self.memory_bytes is None else f", {self.memory_bytes / _GIB:.1f} GiB"
        return f"{self.name} ({cores}{memory})"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` is its inverse."""
        return {**dataclasses.asdict(self), "runtimes": list(self.runtimes)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EdgeDevice:
        """Inverse of ``to_dict``."""
        return cls(**{**data, "runtimes": tuple(data["runtimes"])})


ARMV7 = EdgeDevice("armv7", cores=4, memory_bytes=4 * _GIB)
RASPBERRY_PI_3B = EdgeDevice("raspberry-pi-3b+", cores=4, memory_bytes=_GIB)
I7_7567U = EdgeDevice("i7-7567u", cores=4, memory_bytes=16 * _GIB)
BUILT_IN = (ARMV7, RASPBERRY_PI_3B, I7_7567U)
"""The devices of EDGETUNE, section 5.1."""
THIS_MACHINE = "host"


def parse_device(text: str, *, cap: bool = False) -> EdgeDevice:
    """A built-in device, ``host`` for this machine, or the device of a JSON file.

    The file holds an object with attributes of ``EdgeDevice``, for example
    ``{"name": "gateway", "cores": 2, "memory_bytes": 1073741824}``. A built-in device is always capped to the
    cores of this machine, one of a file where ``cap`` says so.

    Raises:
        UserError: When there is no such device, or the file cannot be read, or has more cores than there are.
    """
    if text == THIS_MACHINE:
        return EdgeDevice(THIS_MACHINE, available_cores())
    for device in BUILT_IN:
        if device.name == text:
            return device.on(available_cores())
    if not text.endswith(".json"):
        names = ", ".join((THIS_MACHINE, *(known.name for known in BUILT_IN)))
        raise UserError(f"unknown device {text!r}; there are {names}, or give a .json file")
    return _from_file(Path(text)).on(available_cores(), cap=cap)


def serving_cores(device: EdgeDevice, training_threads: int = 0) -> tuple[int, ...]:
    """Numbers of the cores that emulate the device: the last ones, beside those that train where there are.

    Args:
        device: The device.
        training_threads: Cores that training keeps for itself; at least one is left to the device.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(device.cores))
    free = max(1, len(cores) - training_threads)
    return tuple(cores[-min(device.cores, free) :])


def _from_file(path: Path) -> EdgeDevice:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"device file {path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"device file {path} is not JSON: {one_line(error)}") from error
    allowed = [field.name for field in dataclasses.fields(EdgeDevice) if field.name != "capped_from"]
    if not isinstance(data, dict) or not {"name", "cores"} <= set(data) <= set(allowed):
        raise UserError(
            f"device file {path} must hold an object with name, cores, and no more than {', '.join(allowed)}"
        )
    try:
        return EdgeDevice(**{**data, "runtimes": _names(data.get("runtimes", [DEFAULT]))})
    except (UserError, TypeError) as error:
        raise UserError(f"device file {path}: {one_line(error)}") from error


def _names(given: Any) -> Sequence[str]:
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise UserError(f"`runtimes` must be a list of names, got {given!r}")
    return tuple(given)
