"""The device that a measurement is for, and the machine on which it was taken."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from petra_optuna.errors import StudyError, UserError, one_line
from petra_optuna.runtimes import DEFAULT, check_name, runtime

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
"""Flags of /proc/cpuinfo by which a runtime chooses kernels."""

_RECORDED_LATER = ("onnx", "onnx-ir", "onnxscript", "scipy")
"""Libraries whose versions the first studies did not record."""
LIBRARIES = ("numpy", "onnxruntime", "torch", "torch-pruning", *_RECORDED_LATER)
"""Libraries whose versions decide what a trial makes; the versions are read without loading them."""

_RUNTIME_ON = {"cpu": DEFAULT, "cuda": "torch"}
"""Device -> runtime of its baseline, which is the default for the candidates too."""


@dataclasses.dataclass(frozen=True)
class DeviceProfile:
    """A device and how it is used while files are measured on it.

    Attributes:
        name: Kind of the device, ``cpu`` or ``cuda``.
        threads: Threads of a session; on cuda those that feed the device.
        latency_batch: Samples per call when latency is measured.
        throughput_batches: Samples per call when throughput is measured; the best of them counts.
        affinity: Numbers of the cores that the measuring process keeps to; the last ``threads`` of this
            machine's when None.
        memory_limit_bytes: Most private memory that loading and running a file may add to a process that has
            its runtime loaded, at any of the batch sizes; None means unlimited. A file that needs more is a
            failed trial. The baseline may need more.
        runtime: Name of the runtime of the candidates, in ``petra_optuna.runtimes``; the device's default
            one when empty. The baseline always runs in the device's default one.
        gpu: Number of the GPU on cuda, among those that ``CUDA_VISIBLE_DEVICES`` lets CUDA see.

    Raises:
        StudyError: On construction, when a value is of another kind or out of range or the device unknown.

    Example:
        >>> DeviceProfile(threads=2, throughput_batches=(16, 64)).threads
        2
    """

    name: str = "cpu"
    threads: int = 1
    latency_batch: int = 1
    throughput_batches: tuple[int, ...] = (64,)
    affinity: tuple[int, ...] | None = None
    memory_limit_bytes: int | None = None
    runtime: str = ""
    gpu: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.name not in tuple(_RUNTIME_ON):
            raise StudyError(f"unknown device {self.name!r}; there are {', '.join(_RUNTIME_ON)}")
        for field in ("threads", "latency_batch", "memory_limit_bytes"):
            value = getattr(self, field)
            if value is None and field == "memory_limit_bytes":
                continue
            if not _is_whole(value) or value < 1:
                raise StudyError(f"{field} of a device must be a whole number of at least 1, got {value!r}")
        batches = _whole_numbers("throughput_batches", "positive batch sizes", self.throughput_batches, 1)
        object.__setattr__(self, "throughput_batches", batches)
        if self.affinity is not None:
            cores = tuple(sorted(_whole_numbers("affinity", "core numbers", self.affinity, 0)))
            object.__setattr__(self, "affinity", cores)
            if len(self.affinity) < self.threads:
                raise StudyError(
                    f"affinity of a device names {len(self.affinity)} cores for {self.threads} threads"
                )
        if not _is_whole(self.gpu) or self.gpu < 0:
            raise StudyError(f"gpu of a device must be a whole number of at least 0, got {self.gpu!r}")
        if self.gpu and self.name != "cuda":
            raise StudyError(f"gpu of a device is for cuda; the device is {self.name}, gpu {self.gpu}")
        object.__setattr__(self, "runtime", self.runtime or _RUNTIME_ON[self.name])
        _check_runtime(self.runtime)

    @property
    def device(self) -> str:
        """``cpu``, or the GPU as PyTorch names it: ``cuda:1``."""
        return f"{self.name}:{self.gpu}" if self.name == "cuda" else self.name

    @property
    def place(self) -> tuple[str, str]:
        """Runtime and device of the candidates."""
        return self.runtime, self.device

    @property
    def baseline_place(self) -> tuple[str, str]:
        """Runtime and device of the baseline."""
        return _RUNTIME_ON[self.name], self.device

    @classmethod
    def parse(cls, text: str) -> DeviceProfile:
        """Read ``cpu`` (one thread), ``cpu:N`` (N threads), ``cuda:N`` (GPU N), or the name of a JSON file.

        ``cuda`` is GPU 0. ``@RUNTIME`` after a device names another runtime than the default, as in
        ``cpu:2@openvino``.
        The file holds an object with attributes of this class, for example
        ``{"threads": 2, "affinity": [0, 1], "throughput_batches": [4, 16], "runtime": "openvino"}``.

        Raises:
            StudyError: When the text is none of these, the file cannot be read, or this machine has fewer
                cores or other ones.
            UserError: When the runtime is not installed, or does not see the device.
        """
        profile = cls._from_file(Path(text)) if text.endswith(".json") else cls.named(text)
        if profile.threads > available_cores():
            raise StudyError(
                f"device {text!r} asks for {profile.threads} threads, there are {available_cores()} cores"
            )
        if missing := sorted(set(profile.affinity or ()) - _cores_here()):
            raise StudyError(f"device {text!r} names core {missing[0]}, which this process may not use")
        runtime(profile.runtime).check_device(profile.device)
        return profile

    @classmethod
    def _from_file(cls, path: Path) -> DeviceProfile:
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise StudyError(f"device file {path} cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise StudyError(f"device file {path} is not JSON: {one_line(error)}") from error
        allowed = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(data) - set(allowed)) if isinstance(data, dict) else ["something else"]
        if unknown:
            raise StudyError(
                f"device file {path} must hold an object with only {', '.join(allowed)}; it has {unknown[0]}"
            )
        try:
            return cls.from_dict(data)
        except StudyError as error:
            raise StudyError(f"device file {path}: {error}") from error

    @classmethod
    def named(cls, text: str) -> DeviceProfile:
        """Read what ``parse`` reads but a file, without a look at this machine.

        Raises:
            StudyError: When the text is no name of a device.
        """
        device, _, chosen = text.partition("@")
        name, colon, number = device.partition(":")
        if colon and not number.isdecimal():
            raise StudyError(
                "a device is 'cpu', 'cpu:THREADS', 'cuda' or 'cuda:GPU', any with '@RUNTIME' behind it, or a "
                f".json file, for example cpu:2@openvino; got {text!r}"
            )
        if name == "cuda":
            return cls(name=name, gpu=int(number or 0), runtime=chosen)
        return cls(name=name, threads=int(number) if colon else 1, runtime=chosen)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` is its inverse.

        GPU 0 is left out: readings that studies share are found by this form, which had no GPU at first.
        """
        fields = dataclasses.asdict(self)
        return fields if self.gpu else {key: value for key, value in fields.items() if key != "gpu"}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DeviceProfile:
        """Inverse of ``to_dict``; also reads a study of when there was one ``throughput_batch`` only."""
        fields = dict(data)
        if "throughput_batch" in fields:
            fields["throughput_batches"] = (fields.pop("throughput_batch"),)
        return cls(**fields)

    def host(self) -> dict[str, Any]:
        """What a measurement depends on: CPU, instruction sets, cores, versions of libraries and runtime.

        Raises:
            UserError: When the runtime is not installed, or does not see the device.
        """
        model, flags = _cpu()
        chosen = runtime(self.runtime)
        chosen.check_device(self.device)
        libraries = dict.fromkeys((*LIBRARIES, chosen.package))
        return {
            "cpu": model,
            "instruction_sets": [flag for flag in _INSTRUCTION_SETS if flag in flags],
            "cores": available_cores(),
            **{name: metadata.version(name) for name in libraries},
            **chosen.machine(self.device),
        }

    def check_host(self, recorded: Mapping[str, Any]) -> None:
        """Refuse to add measurements of another machine to a study.

        Args:
            recorded: Result of ``host`` where the study was made. A library whose version it does not hold
                is not compared where older studies did not record it.

        Raises:
            StudyError: When a value differs; the text names each.
            UserError: When the runtime is not installed, or does not see the device.
        """
        here = self.host()
        differences = [
            f"{key} was {recorded.get(key)!r}, here {here[key]!r}"
            for key in here
            if recorded.get(key) != here[key] and not (key in _RECORDED_LATER and key not in recorded)
        ]
        if differences:
            raise StudyError(
                f"the study was measured on another machine ({'; '.join(differences)}); "
                "start a new study here, or continue it where it was made"
            )


def _check_runtime(name: Any) -> None:
    try:
        check_name(name)
    except UserError as error:
        raise StudyError(f"runtime of a device: {error}") from error


def available_cores() -> int:
    """Cores that this process may use, at least 1; a container may allow fewer than there are."""
    return len(_cores_here())


def _cores_here() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole_numbers(field: str, what: str, given: Any, least: int) -> tuple[int, ...]:
    """The numbers without repetition, in their order.

    Raises:
        StudyError: When they are not a list of whole numbers of at least ``least``.
    """
    listed = isinstance(given, list | tuple) and given
    if not listed or not all(_is_whole(number) and number >= least for number in given):
        raise StudyError(f"{field} of a device must be a list of {what}, got {given!r}")
    return tuple(dict.fromkeys(given))


def _cpu() -> tuple[str, frozenset[str]]:
    """Model name and flags of the processor."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine(), frozenset()
    fields: dict[str, str] = {}
    for line in info.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    flags = fields.get("flags") or fields.get("features") or ""
    return fields.get("model name") or platform.machine(), frozenset(flags.split())
