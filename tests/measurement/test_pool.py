"""One shape, one latency: what is known is not measured again, what is not is measured until it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from petra_optuna.errors import MeasurementFailed
from petra_optuna.measurement import Baseline, FileMeasurement, Measurement, ShapeMeasurer, ShapeStore

BASELINE = Baseline(latency_ms=10.0, throughput_per_s={4: 100.0, 16: 200.0})


def _measurement(ratio: float, width: float, batch: int) -> Measurement:
    return Measurement(
        ratio=ratio,
        ratio_low=ratio * (1 - width / 2),
        ratio_high=ratio * (1 + width / 2),
        pairs=6,
        calls_per_block=9,
        batch=batch,
        threads=1,
        candidate_ms=ratio,
        baseline_ms=1.0,
        spread=0.0,
        candidate_p95_ms=ratio,
        baseline_p95_ms=1.0,
    )


@dataclasses.dataclass
class Process:
    """Answers with the ratios that it is given, each with the width of its interval, then fails."""

    answers: list[tuple[float, float]]
    memory: int | None = None
    calls: int = 0

    def measure(self, path: Path) -> FileMeasurement:
        assert path.exists()
        if self.calls == len(self.answers):
            raise MeasurementFailed("the runtime died")
        ratio, width = self.answers[self.calls]
        self.calls += 1
        latency, small, large = (_measurement(ratio, width, batch) for batch in (1, 4, 16))
        return FileMeasurement(latency, (small, large), peak_memory_bytes=self.memory)


def _file(path: Path, seed: int = 0, width: int = 4) -> Path:
    weights = np.random.default_rng(seed).standard_normal((4, width)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph), str(path))
    return path


def test_a_shape_that_is_known_is_not_measured_again(tmp_path: Path) -> None:
    process = Process([(0.5, 0.01), (0.25, 0.01)], memory=7)
    store = ShapeStore(tmp_path / "shapes")
    first = ShapeMeasurer(process, BASELINE, store).measure(_file(tmp_path / "a.onnx"))
    second = ShapeMeasurer(process, BASELINE, store).measure(_file(tmp_path / "b.onnx", seed=1))
    assert (first.taken, second.taken, process.calls) == (1, 0, 1)
    assert first.values == second.values == {
        "latency_ms": 5.0, "throughput_per_s": 400.0, "peak_memory_bytes": 7.0
    }  # fmt: skip
    wider = ShapeMeasurer(process, BASELINE, store).measure(_file(tmp_path / "c.onnx", width=8))
    assert (wider.taken, wider.values["latency_ms"]) == (1, 2.5)


def test_what_a_latency_depends_on_separates_readings(tmp_path: Path) -> None:
    process, file = Process([(0.5, 0.01)] * 2), _file(tmp_path / "a.onnx")
    store = ShapeStore(tmp_path / "shapes")
    for threads in (1, 2, 1):
        ShapeMeasurer(process, BASELINE, store, {"threads": threads}).measure(file)
    assert process.calls == 2


def test_a_wide_interval_is_taken_up_again_until_it_is_narrow(tmp_path: Path) -> None:
    process = Process([(0.42, 0.3), (0.42, 0.3), (0.4, 0.01), (9.0, 0.01)])
    file, measurer = _file(tmp_path / "a"), ShapeMeasurer(process, BASELINE, ShapeStore(tmp_path / "shapes"))
    taken = [measurer.measure(file).taken for _ in range(5)]
    assert taken == [1, 1, 1, 0, 0]
    again = measurer.measure(file)
    assert 4.0 <= again.values["latency_ms"] < 4.1
    assert again.narrowest.latency.ratio == 0.4


def test_without_a_store_every_file_is_measured(tmp_path: Path) -> None:
    process, file = Process([(0.5, 0.01)] * 2), _file(tmp_path / "a.onnx")
    for _ in range(2):
        ShapeMeasurer(process, BASELINE).measure(file)
    assert process.calls == 2


def test_a_file_that_cannot_be_measured_fails_unless_its_shape_is_known(tmp_path: Path) -> None:
    file, store = _file(tmp_path / "a.onnx"), ShapeStore(tmp_path / "shapes")
    with pytest.raises(MeasurementFailed, match="the runtime died"):
        ShapeMeasurer(Process([]), BASELINE, store).measure(file)
    ShapeMeasurer(Process([(0.5, 0.3)]), BASELINE, store).measure(file)
    assert ShapeMeasurer(Process([]), BASELINE, store).measure(file).values["latency_ms"] == 5.0


def test_a_damaged_reading_is_left_out(tmp_path: Path) -> None:
    file, store = _file(tmp_path / "a.onnx"), ShapeStore(tmp_path / "shapes")
    measured = ShapeMeasurer(Process([(0.5, 0.01)]), BASELINE, store).measure(file)
    (reading,) = (tmp_path / "shapes" / measured.shape).iterdir()
    reading.write_text(reading.read_text()[:-20])
    assert store.get(measured.shape) == {}
    assert ShapeMeasurer(Process([(0.6, 0.01)]), BASELINE, store).measure(file).values["latency_ms"] == 6.0


def test_a_baseline_counts_as_the_best_that_the_machine_measured_of_it(tmp_path: Path) -> None:
    """A study that begins on a busy machine has the scale of the studies before it."""
    store = ShapeStore.in_cache(tmp_path)
    quiet = dataclasses.replace(BASELINE, energy_j=2.0, peak_memory_bytes=7)
    busy = Baseline(17.0, {4: 60.0, 16: 210.0}, peak_memory_bytes=9, energy_j=3.0)
    assert store.best_baseline("net", quiet) == quiet
    best = store.best_baseline("net", busy)
    assert best == Baseline(10.0, {4: 100.0, 16: 210.0}, peak_memory_bytes=9, energy_j=2.0)
    assert store.best_baseline("another net", busy) == busy
    faster = dataclasses.replace(quiet, latency_ms=9.0, energy_j=None)
    assert store.best_baseline("net", faster).latency_ms == 9.0
    assert store.best_baseline("net", busy).latency_ms == 9.0


def test_a_damaged_baseline_counts_for_nothing(tmp_path: Path) -> None:
    store = ShapeStore.in_cache(tmp_path)
    store.best_baseline("net", BASELINE)
    for stored in (store.folder / "net").iterdir():
        stored.write_text("{", encoding="utf-8")
    slower = dataclasses.replace(BASELINE, latency_ms=12.0)
    assert store.best_baseline("net", slower) == slower
    assert store.get("net") == {}
