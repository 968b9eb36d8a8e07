"""Energy of a file: read from the counters of the machine, or estimated where the user names an estimator.

RAPL counts the energy of a CPU's packages and wraps around; NVML counts that of a GPU. Both include what the
device needs when idle and what other work needs, so a busy machine costs more. Where neither can be read
nothing is reported, unless the user names an estimator. Its source begins with ``estimated``, which every
output of its numbers shows.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from petra_optuna.errors import RuntimeFailed, UserError
from petra_optuna.measurement.record import Energy

RAPL = Path("/sys/class/powercap")
NO_RAPL = "not measured: this machine lets nobody read RAPL counters"
NO_NVML = "not measured: NVML cannot be read (pip install petra-optuna[energy])"
COUNTERS = "counters"
"""Name of whatever counts the energy of the device."""
ESTIMATED = "estimated"
"""First word of the source of an energy that nothing counted."""
_PAIRS = 6
_BLOCK_S = 0.25
"""RAPL is updated once a millisecond, so the energy of a block is off by half a percent at most."""

Call = Callable[[], object]
Clock = Callable[[], float]


class Counter(Protocol):
    """Joules since a fixed moment; they never fall.

    Attributes:
        source: Name of what counts.
    """

    source: str

    def joules(self) -> float:
        """Joules so far."""


class Rapl:
    """Energy of a machine's CPU packages, summed, since this was made.

    Args:
        zones: Folders of the powercap tree, one a package.
    """

    def __init__(self, zones: Sequence[Path]) -> None:
        self.source = f"RAPL, {len(zones)} package(s)"
        self._zones = tuple(zones)
        self._ranges = [_number(zone / "max_energy_range_uj") for zone in zones]
        self._last = [_number(zone / "energy_uj") for zone in zones]
        self._total = 0

    def joules(self) -> float:
        """Joules so far; must be read more often than a counter wraps, which takes minutes."""
        for index, zone in enumerate(self._zones):
            reading = _number(zone / "energy_uj")
            spent = reading - self._last[index]
            self._total += spent if spent >= 0 else spent + self._ranges[index]
            self._last[index] = reading
        return self._total * 1e-6


class Nvml:
    """Energy of a GPU since its driver was loaded.

    Args:
        nvml: The module ``pynvml``, initialised.
        uuid: UUID of the GPU. Its number would not do: CUDA and NVML count differently.
    """

    def __init__(self, nvml: Any, uuid: str) -> None:
        self.source = "NVML"
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByUUID(uuid)

    def joules(self) -> float:
        """Joules so far; NVML counts millijoules."""
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) * 1e-3


class CpuTime:
    """An estimate: the seconds for which cores worked for this process, times the watts of a busy core.

    Args:
        watts: Watts of one busy core, as the user gives them.
    """

    def __init__(self, watts: float) -> None:
        self.source = f"{ESTIMATED}: cpu-time at {watts:g} W a core"
        self.watts = watts

    def joules(self) -> float:
        """Joules so far, by the time on cores of all threads of this process."""
        return time.process_time() * self.watts


def estimator(text: str) -> CpuTime:
    """The estimator that ``cpu-time:WATTS`` names.

    Raises:
        UserError: When the text is no such name.
    """
    name, _, watts = text.partition(":")
    try:
        value = float(watts)
    except ValueError:
        value = math.nan
    if name != "cpu-time" or not 0 < value < math.inf:
        raise UserError(f"an energy estimator is cpu-time:WATTS, for example cpu-time:6; got {text!r}")
    return CpuTime(value)


def counter_named(name: str, gpu: str | None = None) -> Counter | str:
    """The estimator of that name; for ``COUNTERS`` a device's counter, or the reason why there is none.

    Args:
        name: ``COUNTERS``, or what ``estimator`` reads.
        gpu: UUID of the GPU; the CPU when None.

    Raises:
        UserError: When the name is neither.
    """
    return find_counter(gpu) if name == COUNTERS else estimator(name)


def find_counter(gpu: str | None = None, root: Path = RAPL) -> Counter | str:
    """The counter of a device's energy, or the reason why there is none.

    Args:
        gpu: UUID of the GPU; the CPU when None.
        root: Folder of the powercap tree.
    """
    return _find_rapl(root) if gpu is None else _find_nvml(gpu)


def _find_nvml(uuid: str) -> Counter | str:
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return NO_NVML
    try:
        nvml.nvmlInit()
        counter = Nvml(nvml, uuid)
        counter.joules()
    except nvml.NVMLError:
        return NO_NVML
    return counter


def _find_rapl(root: Path) -> Counter | str:
    """The zones of the packages; those of their parts and of the whole platform count the same again."""
    try:
        zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if _is_package(zone)]
        return Rapl(zones) if zones else NO_RAPL
    except (OSError, ValueError):  # by default only root may read
        return NO_RAPL


def _is_package(zone: Path) -> bool:
    return (zone / "name").read_text(encoding="utf-8").startswith("package-")


def compare_energy(candidate: Call, baseline: Call, counter: Counter, clock: Clock, batch: int) -> Energy:
    """Energy of one sample, in alternating blocks of at least a quarter of a second.

    Args:
        candidate: Runs one batch of the candidate.
        baseline: Runs one batch of the baseline.
        counter: Counter that is read before and after each block.
        clock: Seconds, monotonic.
        batch: Samples a call.

    Raises:
        RuntimeFailed: When the counter stands still.
    """
    candidate_j: list[float] = []
    baseline_j: list[float] = []
    for pair in range(_PAIRS):
        sides = [(candidate, candidate_j), (baseline, baseline_j)]
        for call, joules in sides if pair % 2 == 0 else sides[::-1]:
            joules.append(_joules_per_call(call, counter, clock) / batch)
    pairs = zip(candidate_j, baseline_j, strict=True)
    ratios = [first / second for first, second in pairs if second > 0]
    if not ratios:
        raise RuntimeFailed(f"{counter.source} does not move")
    return Energy(
        ratio=float(np.median(ratios)),
        candidate_j=float(np.median(candidate_j)),
        baseline_j=float(np.median(baseline_j)),
        batch=batch,
        pairs=_PAIRS,
        source=counter.source,
    )


def energy_alone(call: Call, counter: Counter, clock: Clock, batch: int) -> float:
    """Joules of one sample: median over blocks."""
    return float(np.median([_joules_per_call(call, counter, clock) / batch for _ in range(_PAIRS)]))


def expected_energy_s(*call_s: float) -> float:
    """Seconds that the energy of sides with calls of these lengths takes."""
    return _PAIRS * sum(seconds + max(_BLOCK_S, seconds) for seconds in call_s)


def _joules_per_call(call: Call, counter: Counter, clock: Clock) -> float:
    """Mean joules of a call in one block; the first call of the block is not counted."""
    call()
    calls = 0
    began, before = clock(), counter.joules()
    while not calls or clock() - began < _BLOCK_S:
        call()
        calls += 1
    return (counter.joules() - before) / calls


def _number(path: Path) -> int:
    return int(path.read_text(encoding="utf-8"))
