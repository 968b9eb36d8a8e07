"""Energy of a file: read from the counters of the machine, never estimated.

RAPL counts the energy of a CPU's packages and wraps around; NVML counts that of a GPU. Both include what the
device needs when idle and what other work needs, so a busy machine costs more. Where neither can be read
nothing is reported.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from petra_optuna.errors import RuntimeFailed
from petra_optuna.measurement.record import Energy

RAPL = Path("/sys/class/powercap")
NO_RAPL = "not measured: this machine lets nobody read RAPL counters"
NO_NVML = "not measured: NVML cannot be read (pip install petra-optuna[energy])"
_PAIRS = 6
_BLOCK_S = 0.25
"""RAPL moves once a millisecond: an error of half a percent at most."""

Call = Callable[[], object]
Clock = Callable[[], float]


class Counter(Protocol):
    """Joules since some moment; never falls."""

    source: str

    def joules(self) -> float:
        """The reading."""


class Rapl:
    """The packages of a machine, summed.

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
        """Since the making. That a counter wrapped, once in minutes, is seen where it is read more often."""
        for index, zone in enumerate(self._zones):
            now = _number(zone / "energy_uj")
            passed = now - self._last[index]
            self._total += passed if passed >= 0 else passed + self._ranges[index]
            self._last[index] = now
        return self._total * 1e-6


class Nvml:
    """A GPU since its driver was loaded."""

    def __init__(self, nvml: Any, index: int = 0) -> None:
        self.source = "NVML"
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def joules(self) -> float:
        """NVML counts millijoules."""
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) * 1e-3


def find_counter(device: str, root: Path = RAPL) -> Counter | str:
    """What counts the energy of a device, or why nothing does.

    Args:
        device: ``cuda`` for a GPU, else the CPU.
        root: Of the powercap tree.
    """
    if device == "cuda":
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            return NO_NVML
        try:
            nvml.nvmlInit()
            counter = Nvml(nvml)
            counter.joules()
        except nvml.NVMLError:
            return NO_NVML
        return counter
    # A package is intel-rapl:N, on AMD as well; intel-rapl:N:M are its parts.
    zones = sorted(zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1)
    try:
        return Rapl(zones) if zones else NO_RAPL
    except (OSError, ValueError):  # by default only root may read
        return NO_RAPL


def compare_energy(candidate: Call, baseline: Call, counter: Counter, clock: Clock, batch: int) -> Energy:
    """Energy of one sample, in alternating blocks of at least a quarter of a second.

    Args:
        candidate: Runs one batch.
        baseline: The same.
        counter: Read before and after each block.
        clock: Seconds, monotonic.
        batch: Samples a call.

    Raises:
        RuntimeFailed: When the counter stands still.
    """
    own: list[float] = []
    its: list[float] = []
    for pair in range(_PAIRS):
        sides = [(candidate, own), (baseline, its)]
        for call, found in sides if pair % 2 == 0 else sides[::-1]:
            found.append(_block(call, counter, clock) / batch)
    ratios = [first / second for first, second in zip(own, its, strict=True) if second > 0]
    if not ratios:
        raise RuntimeFailed(f"{counter.source} does not move")
    return Energy(
        ratio=float(np.median(ratios)),
        candidate_j=float(np.median(own)),
        baseline_j=float(np.median(its)),
        batch=batch,
        pairs=_PAIRS,
        source=counter.source,
    )


def energy_alone(call: Call, counter: Counter, clock: Clock, batch: int) -> float:
    """Joules of one sample: median over blocks."""
    return float(np.median([_block(call, counter, clock) / batch for _ in range(_PAIRS)]))


def _block(call: Call, counter: Counter, clock: Clock) -> float:
    """Joules of a call."""
    call()
    calls = 0
    began, before = clock(), counter.joules()
    while not calls or clock() - began < _BLOCK_S:
        call()
        calls += 1
    return (counter.joules() - before) / calls


def _number(path: Path) -> int:
    return int(path.read_text())
