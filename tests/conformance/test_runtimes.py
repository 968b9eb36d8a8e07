"""Laws that every runtime keeps; a new one is one row. Rows whose extra is not installed are skipped."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from petra_optuna.errors import RuntimeFailed, UserError
from petra_optuna.runtimes import RUNTIMES, OnnxRuntime, Runtime, runtime

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


@every_runtime
def test_it_computes_what_the_model_computes_at_any_batch_size(
    kind: Runtime, path: Path, weights: list[np.ndarray]
) -> None:
    session = kind.open(path, threads=1)
    for batch in (4, 1, 5, 64):
        values = np.random.default_rng(batch).standard_normal((batch, WIDTH)).astype(np.float32)
        expected = values
        for weight in weights:
            expected = np.maximum(expected @ weight, 0)
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
    with pytest.raises(UserError, match="unknown runtime 'abacus'; there are onnxruntime, openvino"):
        runtime("abacus")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install petra-optuna\[openvino\]"):
        runtime("openvino")
