"""Energy counters on a powercap tree and an NVML of our own making."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from petra_optuna.errors import RuntimeFailed
from petra_optuna.measurement.energy import NO_NVML, NO_RAPL, compare_energy, energy_alone, find_counter

RANGE = 10_000_000


class Machine:
    """Two packages whose counters a call moves, and a clock.

    Parts of a package are counted in it, and the platform, as some laptops have it, counts all once more.
    """

    def __init__(self, root: Path, start: int = 0) -> None:
        self.root, self.now, self.counts = root, 0.0, {"intel-rapl:0": start, "intel-rapl:1": 0}
        names = {"intel-rapl:0:0": "core", "intel-rapl:2": "psys"}
        names |= {zone: f"package-{number}" for number, zone in enumerate(self.counts)}
        for zone, name in names.items():
            (root / zone).mkdir(parents=True)
            (root / zone / "name").write_text(f"{name}\n")
            (root / zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
            (root / zone / "energy_uj").write_text("77\n")
        self.spend(0.0, 0.0)

    def spend(self, seconds: float, joules: float) -> None:
        self.now += seconds
        for name in self.counts:
            self.counts[name] = (self.counts[name] + round(joules / 2 * 1e6)) % RANGE
            (self.root / name / "energy_uj").write_text(f"{self.counts[name]}\n")
        (self.root / "intel-rapl:2" / "energy_uj").write_text(f"{round(self.now * 1e6)}\n")

    def clock(self) -> float:
        return self.now


def test_packages_are_summed_and_a_counter_that_wraps_goes_on(tmp_path: Path) -> None:
    machine = Machine(tmp_path, start=RANGE - 1_500_000)
    counter = find_counter(root=tmp_path)
    assert not isinstance(counter, str)
    assert counter.source == "RAPL, 2 package(s)"
    seen = []
    for _ in range(5):
        machine.spend(1.0, 2.0)
        seen.append(counter.joules())
    assert seen == pytest.approx([2.0, 4.0, 6.0, 8.0, 10.0])


def test_energy_is_that_of_a_sample_whichever_side_goes_first(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    counter = find_counter(root=tmp_path)
    assert not isinstance(counter, str)
    found = compare_energy(
        lambda: machine.spend(0.01, 0.08), lambda: machine.spend(0.05, 0.32), counter, machine.clock, batch=16
    )
    assert found.ratio == pytest.approx(0.25)
    assert (found.candidate_j, found.baseline_j) == (pytest.approx(0.005), pytest.approx(0.02))
    alone = energy_alone(lambda: machine.spend(0.05, 0.32), counter, machine.clock, batch=16)
    assert alone == pytest.approx(0.02)


def test_a_counter_that_stands_still_is_no_zero(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    counter = find_counter(root=tmp_path)
    assert not isinstance(counter, str)
    with pytest.raises(RuntimeFailed, match=r"RAPL, .* does not move"):
        compare_energy(
            lambda: machine.spend(0.1, 0.0), lambda: machine.spend(0.1, 0.0), counter, machine.clock, 1
        )


def test_where_nothing_counts_the_reason_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_counter(root=tmp_path / "nothing") == NO_RAPL
    Machine(tmp_path)
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert find_counter(root=tmp_path) == NO_RAPL
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_counter("GPU-1") == NO_NVML


def test_the_gpu_that_cuda_uses_is_read_through_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        pass

    readings = iter([1000, 3500])
    nvml = types.ModuleType("pynvml")
    nvml.NVMLError = NVMLError  # type: ignore[attr-defined]
    nvml.nvmlInit = lambda: None  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetHandleByUUID = lambda uuid: uuid  # type: ignore[attr-defined]
    counters = {"GPU-3": readings}
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda gpu: next(counters[gpu])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    counter = find_counter("GPU-3")
    assert not isinstance(counter, str)
    assert (counter.source, counter.joules()) == ("NVML", 3.5)

    def none() -> None:
        raise NVMLError

    nvml.nvmlInit = none  # type: ignore[attr-defined]
    assert find_counter("GPU-3") == NO_NVML
