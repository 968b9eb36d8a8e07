"""Settings of one file: ratios to its anchor, energy, memory, and children that are replaced and ended."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.chain_file import chain

from petra_optuna.errors import MeasurementFailed
from petra_optuna.measurement import InferenceSetting, Schedule, SettingProcess
from petra_optuna.measurement.energy import RAPL
from petra_optuna.measurement.setting import SettingMeasurement

SHORT = Schedule(block_s=0.005, settle_s=0.001, min_pairs=4, max_pairs=4)
CORES = tuple(sorted(os.sched_getaffinity(0)))
TRIES = 10


@pytest.fixture(scope="module")
def process(files, feeds):
    with SettingProcess(files / "fast.onnx", feeds, CORES, schedule=SHORT) as one:
        yield one


def test_the_anchors_own_setting_is_one(files, feeds):
    """The machine is shared: one quiet moment in a few is enough."""
    ratios = []
    with SettingProcess(files / "slow.onnx", feeds, CORES) as one:
        for _ in range(TRIES):
            ratios.append(one.measure(InferenceSetting()).call.ratio)
            if abs(ratios[-1] - 1) <= 0.05:
                return
    pytest.fail(f"not once near 1: {ratios}")


def test_a_call_of_a_larger_batch_takes_longer_and_a_sample_of_it_shorter(process):
    one, large = (process.measure(InferenceSetting(batch)).call for batch in (1, 512))
    assert (one.batch, large.batch) == (1, 512)
    assert 1.5 * one.ratio < large.ratio < 512 * one.ratio


def test_a_measurement_says_its_setting_and_survives_its_json(process):
    measured = process.measure(InferenceSetting(4))
    assert measured.setting == InferenceSetting(4)
    assert measured.call.runtime.startswith("onnxruntime ")
    assert (measured.energy_j, measured.energy_source) == (None, "")
    assert SettingMeasurement.from_dict(measured.to_dict()) == measured


def test_the_anchor_and_single_calls_agree_within_a_factor(process):
    seconds = process.call_seconds(InferenceSetting(), 50)
    assert len(seconds) == 50
    assert 0.1 < process.anchor_ms() / (1e3 * np.median(seconds)) < 10


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_each_number_of_cores_has_a_child_of_its_own(process):
    for cores in (1, 2):
        process.measure(InferenceSetting(cores=cores))
    allowed = {cores: os.sched_getaffinity(child._process.pid) for cores, child in process._children.items()}
    assert allowed == {1: set(CORES[-1:]), 2: set(CORES[-2:])}


@pytest.fixture(scope="module")
def heavy(tmp_path_factory):
    """A file with 48 MB of weights."""
    path = tmp_path_factory.mktemp("heavy") / "heavy.onnx"
    onnx.save(chain(2000, 3), path)
    return path


def test_peak_memory_is_that_of_the_file_and_its_batch(process, heavy, feeds):
    with SettingProcess(heavy, feeds, CORES, schedule=SHORT) as one:
        assert one.peak_memory(InferenceSetting()) > heavy.stat().st_size
    small, batch = (process.peak_memory(InferenceSetting(size)) for size in (1, 100_000))
    assert 0 < small < 20e6 < batch


def test_the_devices_memory_does_not_hold_the_model_and_says_so_each_time(heavy, feeds):
    with SettingProcess(heavy, feeds, CORES, memory_limit_bytes=20_000_000, schedule=SHORT) as one:
        for ask in (one.anchor_ms, lambda: one.measure(InferenceSetting())):
            with pytest.raises(MeasurementFailed, match="bad_alloc"):
                ask()
        assert one.runs_without_limit()


def test_a_file_that_is_none_runs_without_a_limit_neither(tmp_path, feeds):
    (tmp_path / "broken.onnx").write_text("no graph")
    with SettingProcess(tmp_path / "broken.onnx", feeds, CORES, memory_limit_bytes=10**9) as one:
        assert not one.runs_without_limit()


def test_a_batch_that_the_memory_does_not_hold_is_refused_and_a_smaller_one_is_measured(files, feeds):
    limit = 60_000_000
    with SettingProcess(files / "fast.onnx", feeds, CORES, memory_limit_bytes=limit, schedule=SHORT) as one:
        for _ in range(2):
            with pytest.raises(MeasurementFailed, match=r"bad_alloc|does not hold the batch"):
                one.measure(InferenceSetting(1_000_000))
            assert one.measure(InferenceSetting(2)).call.ratio > 0


def test_energy_by_an_estimator_is_positive_and_says_estimated(files, feeds):
    with SettingProcess(files / "fast.onnx", feeds, CORES, energy="cpu-time:6", schedule=SHORT) as one:
        first, batch = (one.measure(InferenceSetting(size)) for size in (1, 64))
    for measured in (first, batch):
        assert measured.energy_j > 0
        assert measured.energy_source == "estimated: cpu-time at 6 W a core"
        # One thread that computes takes 6 W: joules of a sample are its time times 6.
        expected = 6 * measured.call.candidate_ms / 1e3 / measured.setting.batch
        assert 0.3 < measured.energy_j / expected < 3
    assert batch.energy_j < first.energy_j


@pytest.mark.skipif((RAPL / "intel-rapl:0").exists(), reason="this machine counts energy")
def test_energy_that_nothing_counts_is_no_measurement(files, feeds):
    with SettingProcess(files / "fast.onnx", feeds, CORES, energy="counters", schedule=SHORT) as one:
        for _ in range(2):
            with pytest.raises(MeasurementFailed, match="energy cannot be an objective here: not measured"):
                one.measure(InferenceSetting())


def crashing(tmp_path: Path) -> tuple[str, ...]:
    """The real worker, which dies at batch 13."""
    script = tmp_path / "worker.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal
            from petra_optuna.measurement import setting_bench, worker

            measure = setting_bench.SettingBench.measure

            def measure_or_die(self, setting):
                if setting.batch == 13:
                    os.kill(os.getpid(), signal.SIGSEGV)
                return measure(self, setting)

            setting_bench.SettingBench.measure = measure_or_die
            worker.main()
            """
        )
    )
    return sys.executable, str(script)


def test_a_crash_fails_one_measurement_and_the_next_works(files, feeds, tmp_path):
    with SettingProcess(files / "fast.onnx", feeds, CORES, schedule=SHORT, worker=crashing(tmp_path)) as one:
        with pytest.raises(MeasurementFailed, match="SIGSEGV"):
            one.measure(InferenceSetting(13))
        assert one.measure(InferenceSetting(2)).call.ratio > 0


def test_children_end_with_it(files, feeds):
    with SettingProcess(files / "fast.onnx", feeds, CORES, schedule=SHORT) as one:
        one.anchor_ms()
        (child,) = one._children.values()
        folder = Path(one._folder.name)
        assert child._process.poll() is None
    assert child._process.poll() is not None
    assert not folder.exists()
