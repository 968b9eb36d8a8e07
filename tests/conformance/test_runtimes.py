"""Laws that every runtime keeps; a new one is one row. Rows whose extra is not installed are skipped."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization as ort

from petra_optuna.deploy.checks import count
from petra_optuna.deploy.probe import probe
from petra_optuna.errors import LoweringFailed, MeasurementFailed, RuntimeFailed, UserError
from petra_optuna.measurement import DeviceProfile, MeasuringProcess, Schedule, bench, open_file
from petra_optuna.operations import CONVERSIONS, EVERY_OPERATION, check_runs, default_space
from petra_optuna.pipeline import SearchSpace
from petra_optuna.runtimes import ARITHMETIC, DEFAULT, RUNTIMES, OnnxRuntime, Runtime, runtime

WIDTH = 384
ROWS = [
    pytest.param(
        row,
        id=row.name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(row.package) is None, reason=f"{row.package} is not installed"
        ),
    )
    for row in RUNTIMES
]
every_runtime = pytest.mark.parametrize("kind", ROWS)

THREADS = """
import sys
from pathlib import Path
import numpy as np
import psutil
from petra_optuna.runtimes import runtime

session = runtime(sys.argv[1]).open(Path(sys.argv[2]), {threads})
feeds = {{"input": np.ones((256, int(sys.argv[3])), np.float32)}}
def spent():
    return {{item.id: item.user_time + item.system_time for item in psutil.Process().threads()}}
before = spent()
for _ in range(2000):
    session.run(feeds)
    used = sorted(time - before.get(thread, 0.0) for thread, time in spent().items())
    if used[-1] > 0.5:
        break
print(sum(time > 0.2 * used[-1] for time in used))
"""


@pytest.fixture(scope="module")
def weights() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(rng.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32) for _ in range(3)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, weights: list[np.ndarray]) -> Path:
    """Three products with a ReLU behind each."""
    nodes, last = [], "input"
    for index in range(len(weights)):
        after = "output" if index == len(weights) - 1 else f"hidden{index}"
        nodes += [
            helper.make_node("MatMul", [last, f"weight{index}"], [f"product{index}"]),
            helper.make_node("Relu", [f"product{index}"], [after]),
        ]
        last = after
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH])
        for name in ("input", "output")
    ]
    stored = [numpy_helper.from_array(array, f"weight{index}") for index, array in enumerate(weights)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], stored)
    made = tmp_path_factory.mktemp("runtimes") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), made)
    return made


def outputs_of_the_model(values: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    for weight in weights:
        values = np.maximum(values @ weight, 0)
    return values


@pytest.fixture
def inputs() -> np.ndarray:
    return np.random.default_rng(7).standard_normal((16, WIDTH)).astype(np.float32)


class Once(ort.CalibrationDataReader):
    """One batch to calibrate on."""

    def __init__(self, feeds: dict[str, np.ndarray]) -> None:
        self.left = [feeds]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


def quantised(path: Path, folder: Path, inputs: np.ndarray) -> Path:
    """Unsigned activations, signed weights, as the project makes them."""
    made = folder / "int8.onnx"
    ort.quantize_static(
        path,
        made,
        Once({"input": inputs}),
        activation_type=ort.QuantType.QUInt8,
        weight_type=ort.QuantType.QInt8,
    )
    return made


@every_runtime
def test_it_computes_what_the_model_computes_at_any_batch_size(
    kind: Runtime, path: Path, weights: list[np.ndarray]
) -> None:
    session = kind.open(path, threads=1)
    for batch in (4, 1, 5, 64):
        values = np.random.default_rng(batch).standard_normal((batch, WIDTH)).astype(np.float32)
        expected = outputs_of_the_model(values, weights)
        outputs = session.run({"input": values})
        assert len(outputs) == 1
        np.testing.assert_allclose(outputs[0], expected, atol=1e-4)


@every_runtime
def test_an_output_stays_what_it_was_when_the_session_runs_again(kind: Runtime, path: Path) -> None:
    session = kind.open(path, threads=1)
    first = session.run({"input": np.ones((2, WIDTH), np.float32)})[0]
    kept = first.copy()
    session.run({"input": -np.ones((2, WIDTH), np.float32)})
    np.testing.assert_array_equal(first, kept)


@every_runtime
def test_wrong_files_and_inputs_give_the_reason_in_one_line(
    kind: Runtime, path: Path, tmp_path: Path
) -> None:
    garbage = tmp_path / f"garbage{kind.suffix}"
    garbage.write_bytes(b"this is no model")
    for wrong in (garbage, tmp_path / f"missing{kind.suffix}"):
        with pytest.raises(RuntimeFailed, match=r"cannot load the file: \S") as caught:
            kind.open(wrong, threads=1)
        assert "\n" not in str(caught.value)
    session = kind.open(path, threads=1)
    with pytest.raises(RuntimeFailed, match=r"cannot run the file: \S") as caught:
        session.run({"input": np.zeros((1, 3), np.float32)})
    assert "\n" not in str(caught.value)


def busy_threads(kind: Runtime, path: Path, threads: str) -> int:
    """How many threads of a child did the work, asked to open the file with ``threads``."""
    code = THREADS.format(threads=threads)
    command = [sys.executable, "-c", code, kind.name, str(path), str(WIDTH)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


@every_runtime
def test_one_thread_does_the_work_where_one_was_asked_for(kind: Runtime, path: Path) -> None:
    assert busy_threads(kind, path, "1") == 1


def test_a_session_that_ignores_its_threads_is_caught(path: Path) -> None:
    """The same count, of a session that was asked for one thread and takes two."""
    assert busy_threads(OnnxRuntime(), path, "1 + 1") > 1


def test_the_package_loads_no_library_of_an_extra() -> None:
    code = "import sys, petra_optuna.runtimes; sys.exit(bool({'torch', 'openvino'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@every_runtime
def test_a_device_that_it_does_not_serve_is_refused(kind: Runtime, path: Path) -> None:
    assert "float32" in kind.precisions("cpu")
    assert kind.precisions("abacus") == ()
    with pytest.raises(UserError, match="abacus"):
        kind.open(path, 1, "abacus")


def test_an_unknown_runtime_and_a_missing_extra_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="unknown runtime 'abacus'; there are onnxruntime, openvino, torch"):
        runtime("abacus")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install petra-optuna\[openvino\]"):
        runtime("openvino")


@every_runtime
def test_a_float_file_computes_in_float_whatever_the_cpu_could(kind: Runtime, path: Path) -> None:
    _, kernels = kind.inspect(path)
    assert count(kernels, kind.weighted.float) == 3
    assert not [name for name in kernels if name.endswith((".bf16", ".f16"))]


@every_runtime
def test_a_file_that_asks_for_bfloat16_gets_it_where_the_runtime_has_it(
    kind: Runtime, path: Path, weights: list[np.ndarray], inputs: np.ndarray, tmp_path: Path
) -> None:
    asking = onnx.load(path)
    asking.metadata_props.add(key=ARITHMETIC, value="bfloat16")
    onnx.save(asking, tmp_path / "asking.onnx")
    session, kernels = kind.inspect(tmp_path / "asking.onnx")
    expected = outputs_of_the_model(inputs, weights)
    error = np.abs(session.run({"input": inputs})[0] - expected).max() / np.abs(expected).max()
    able = "bfloat16" in kind.precisions()
    assert any(name.endswith(".bf16") for name in kernels) == able
    assert (1e-4 < error < 0.05) == able


@pytest.mark.parametrize("kind", [row for row in ROWS if row.values[0].name != "torch"])
def test_a_quantised_file_runs_in_int8_and_is_counted(
    kind: Runtime, path: Path, weights: list[np.ndarray], inputs: np.ndarray, tmp_path: Path
) -> None:
    assert "int8_static" in kind.formats()
    session, kernels = kind.inspect(quantised(path, tmp_path, inputs))
    assert (count(kernels, kind.weighted.int8), count(kernels, kind.weighted.float)) == (3, 0)
    expected = outputs_of_the_model(inputs, weights)
    found = session.run({"input": inputs})[0]
    assert 1e-4 < np.abs(found - expected).max() / np.abs(expected).max() < 0.1


@every_runtime
def test_what_goes_wrong_in_the_first_look_is_the_reason_of_one_trial(kind: Runtime, path: Path) -> None:
    with pytest.raises(LoweringFailed, match=f"{kind.name} fails on the file: .*cannot load") as caught:
        probe(b"this is no model", runtime=kind.name)
    assert "\n" not in str(caught.value)
    seen = probe(path.read_bytes(), {"input": np.ones((2, WIDTH), np.float32)}, runtime=kind.name)
    assert seen.finite
    assert count(seen.kernels, kind.weighted.float) == 3


@every_runtime
def test_its_script_runs_the_file(kind: Runtime, path: Path, inputs: np.ndarray, tmp_path: Path) -> None:
    script = kind.run_script()
    np.save(tmp_path / "inputs.npy", inputs)
    code = f"""
import sys
from pathlib import Path
import numpy as np
{script.imports}
file, threads = Path(sys.argv[1]), 1
{script.load}
feeds = {{names[0]: np.load(sys.argv[2])}}
np.save(sys.argv[3], {script.run}[0])
"""
    command = [sys.executable, "-c", code, path, tmp_path / "inputs.npy", tmp_path / "outputs.npy"]
    subprocess.run(command, check=True)
    expected = kind.open(path, threads=1).run({"input": inputs})[0]
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), expected, atol=1e-5)


@every_runtime
def test_a_crash_while_measuring_is_the_reason_of_one_trial(
    kind: Runtime, path: Path, tmp_path: Path
) -> None:
    """The runtime's own ``open`` dies on one file; the next one is measured, against the same baseline."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, signal, sys\n"
        "from petra_optuna.measurement import worker\n"
        "from petra_optuna.runtimes import runtime\n"
        f"kind = type(runtime({kind.name!r}))\n"
        "opened = kind.open\n"
        "def open(self, path, threads, device='cpu'):\n"
        "    if 'bad' in str(path):\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return opened(self, path, threads, device)\n"
        "kind.open = open\n"
        "worker.main()\n"
    )
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(path.read_bytes())
    short = Schedule(block_s=0.002, settle_s=0.001, min_pairs=4, max_pairs=4)
    profile = DeviceProfile(latency_batch=2, throughput_batches=(4,), runtime=kind.name)
    feeds = {"input": np.ones((2, WIDTH), np.float32)}
    command = (sys.executable, str(script))
    with MeasuringProcess(profile, path, feeds, schedule=short, worker=command) as process:
        with pytest.raises(MeasurementFailed, match="SIGSEGV"):
            process.measure(bad)
        found = process.measure(path)
    every = (found.latency, *found.throughput)
    assert {item.runtime for item in every} == {f"{kind.package} {version(kind.package)}"}


@every_runtime
def test_the_baseline_is_in_the_default_runtime_whatever_the_candidate_runs_in(
    kind: Runtime, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, str]] = []

    class Idle:
        def run(self, feeds: object) -> list[np.ndarray]:
            return []

    class Recorder(type(kind)):  # type: ignore[misc]
        def open(self, path: Path, threads: int, device: str = "cpu") -> Idle:
            opened.append((path.name, self.recorded))
            return Idle()

    def recorder(name: str) -> Runtime:
        found = Recorder()
        found.recorded = name
        return found

    for module in (bench, open_file):
        monkeypatch.setattr(module, "runtime", recorder)
    for name in ("baseline.onnx", "candidate.onnx"):
        (tmp_path / name).write_bytes(path.read_bytes())
    loaded = bench.Bench.load(
        tmp_path / "baseline.onnx",
        {"input": np.ones((2, WIDTH), np.float32)},
        DeviceProfile(runtime=kind.name),
        Schedule(block_s=0.001, settle_s=0.0, min_pairs=4, max_pairs=4),
        lambda seconds: None,
    )
    loaded.measure(tmp_path / "candidate.onnx")
    assert set(opened) == {("baseline.onnx", DEFAULT), ("candidate.onnx", kind.name)}


@every_runtime
def test_its_space_holds_what_it_runs_and_another_space_is_refused(kind: Runtime) -> None:
    space = default_space(3, kind.name)
    check_runs(space, kind.name)
    runs = {operation.format for operation in space.conversions}
    assert runs == set(kind.formats()) - {"float32"}
    assert (space == default_space(3)) == (kind.name == DEFAULT)
    for operation in EVERY_OPERATION:
        if operation.kind == "conversion" and operation.format not in kind.formats():
            with pytest.raises(UserError, match=f"{kind.name!r} on cpu does not run {operation.name}"):
                check_runs(SearchSpace(space.body, (operation,)), kind.name)


def test_the_default_space_is_that_of_the_default_runtime() -> None:
    assert default_space().conversions == CONVERSIONS
