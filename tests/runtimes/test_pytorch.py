"""The operators against ONNX Runtime, on the files of every model that the operations must work on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conformance.models import CASES
from onnx import TensorProto, helper, numpy_helper

from petra_optuna.deploy import export_onnx
from petra_optuna.errors import RuntimeFailed, StudyError, UserError
from petra_optuna.measurement import DeviceProfile, Schedule, bench
from petra_optuna.nn.inputs import take, to_feeds
from petra_optuna.operations import Half, QuantizeAware, Train, check_runs, default_space
from petra_optuna.pipeline import SearchSpace
from petra_optuna.runtimes import OnnxRuntime, runtime
from petra_optuna.runtimes.device_clock import DeviceClock
from petra_optuna.runtimes.pytorch import PyTorch


@pytest.mark.parametrize("name", CASES)
def test_a_file_computes_what_it_computes_in_onnx_runtime(name: str) -> None:
    task = CASES[name]()
    data = export_onnx(task.model, task.example).SerializeToString()
    session, reference = (kind.open(data, 1) for kind in (PyTorch(), OnnxRuntime()))
    for batch in (task.example, take(task.example, 3)):
        feeds = to_feeds(batch)
        expected = reference.run(feeds)[0]
        np.testing.assert_allclose(session.run(feeds)[0], expected, atol=1e-4 * np.abs(expected).max())


def one(
    kind: str, inputs: dict[str, np.ndarray], stored: dict[str, np.ndarray], **attributes: object
) -> bytes:
    """A file of one operator."""
    ends = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), None)
        for name, array in inputs.items()
    ]
    node = helper.make_node(kind, [*inputs, *stored], ["output"], **attributes)
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph([node], "one", ends, [output], tensors)
    data: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()
    return data


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


ONES: list[tuple[str, dict[str, np.ndarray], dict[str, np.ndarray], dict[str, object]]] = [
    ("Conv", {"x": floats(2, 4, 9, 9)}, {"w": floats(6, 2, 3, 3)}, {"group": 2, "pads": [0, 1, 2, 1]}),
    ("Conv", {"x": floats(2, 3, 20)}, {"w": floats(4, 3, 5)}, {"strides": [2], "dilations": [2]}),
    ("MaxPool", {"x": floats(2, 3, 9, 9)}, {}, {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1]}),
    ("AveragePool", {"x": floats(2, 3, 8, 8)}, {}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("AveragePool", {"x": floats(2, 3, 8)}, {}, {"kernel_shape": [2], "strides": [2]}),
    ("Gemm", {"x": floats(5, 3)}, {"w": floats(4, 3), "b": floats(4)}, {"transB": 1, "alpha": 0.5}),
    ("ReduceMax", {"x": floats(2, 3, 4)}, {"axes": ints(2)}, {}),
    ("ReduceSum", {"x": floats(2, 3, 4)}, {"axes": ints(0, 2)}, {"keepdims": 0}),
    ("ReduceMean", {"x": floats(2, 3, 4)}, {"axes": ints(-1, 1)}, {"keepdims": 0}),
    ("Slice", {"x": floats(6, 8)}, {"s": ints(1), "e": ints(2**63 - 1), "a": ints(-1), "t": ints(2)}, {}),
    ("Gather", {"x": floats(5, 4, 3)}, {"i": np.array([[0, -1], [2, 1]])}, {"axis": 1}),
    ("Clip", {"x": floats(40)}, {"low": np.float32(-0.5), "high": np.float32(0.25)}, {}),
    ("HardSwish", {"x": floats(40)}, {}, {}),
    ("HardSigmoid", {"x": floats(40)}, {}, {"alpha": 1 / 6, "beta": 0.5}),
    ("Gelu", {"x": floats(40)}, {}, {"approximate": "tanh"}),
    ("Div", {"x": floats(40)}, {"y": np.float32(3)}, {}),
    ("LayerNormalization", {"x": floats(4, 6)}, {"scale": floats(6), "bias": floats(6)}, {"epsilon": 1e-3}),
    ("Unsqueeze", {"x": floats(2, 3)}, {"axes": ints(-1, 0)}, {}),
    ("Expand", {"x": floats(3, 1)}, {"shape": ints(2, 1, 4)}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "inputs", "stored", "attributes"), ONES, ids=[row[0] for row in ONES])
def test_an_operator_is_that_of_the_standard(
    kind: str, inputs: dict[str, np.ndarray], stored: dict[str, np.ndarray], attributes: dict[str, object]
) -> None:
    data = one(kind, inputs, stored, **attributes)
    found, expected = (each.open(data, 1).run(inputs)[0] for each in (PyTorch(), OnnxRuntime()))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_operator_that_it_does_not_know_is_named_in_one_line() -> None:
    data = one("Det", {"x": floats(3, 3)}, {})
    with pytest.raises(RuntimeFailed, match="operator Det is not among those it knows"):
        PyTorch().open(data, 1)
    for name in ("_op_conv", "__init__", "find"):
        with pytest.raises(RuntimeFailed, match="not among those"):
            PyTorch().open(one("Relu", {"x": floats(3)}, {}).replace(b"Relu", name[:4].encode()), 1)


def test_nodes_may_stand_in_any_order_as_a_conversion_leaves_them(tiny_task: object) -> None:
    exported = export_onnx(torch.nn.Sequential(torch.nn.Linear(6, 40), torch.nn.ReLU()), (torch.ones(2, 6),))
    context = SimpleNamespace(calibration_batches=lambda **_: iter([((torch.ones(2, 6),), torch.ones(2))]))
    half = Half().apply(exported, context).model  # type: ignore[arg-type]
    made = {name for value in (half.graph.input, half.graph.initializer) for name in [v.name for v in value]}
    in_order = True
    for node in half.graph.node:
        in_order = in_order and made.issuperset(node.input)
        made.update(node.output)
    assert not in_order
    found = PyTorch().open(half.SerializeToString(), 1).run({"input": floats(2, 6)})[0]
    expected = OnnxRuntime().open(half.SerializeToString(), 1).run({"input": floats(2, 6)})[0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_session_leaves_the_threads_of_the_process_as_they_are() -> None:
    before = torch.get_num_threads()
    session = PyTorch().open(one("Relu", {"x": floats(3)}, {}), before + 1)
    session.run({"x": floats(3)})
    assert torch.get_num_threads() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_is_refused_in_one_line_where_torch_sees_none(tmp_path: Path) -> None:
    asking: list[Callable[[], object]] = [
        lambda: DeviceProfile.parse("cuda"),
        lambda: runtime("torch").open(one("Relu", {"x": floats(3)}, {}), 1, "cuda"),
    ]
    for ask in asking:
        with pytest.raises(UserError, match="'torch' sees no cuda device here") as caught:
            ask()
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="runs on cpu, not on 'cuda'"):
        DeviceProfile.parse("cuda@onnxruntime")
    with pytest.raises(StudyError, match="unknown device 'npu'"):
        DeviceProfile.parse("npu")


def test_on_cuda_candidates_and_baseline_run_in_pytorch_by_device_events(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a device that is faked: its events tell the time, and every file is opened on it."""
    recorded: list[str] = []
    opened: list[str] = []
    asked: list[str] = []

    def no_counter(gpu: str) -> str:
        asked.append(gpu)
        return "none"

    class Mark:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            recorded.append("record")

        def synchronize(self) -> None:
            recorded.append("synchronize")

        def elapsed_time(self, end: object) -> float:
            return 1.0

    real = PyTorch.open

    def on_the_fake(self: PyTorch, path: Path, threads: int, device: str = "cpu") -> object:
        opened.append(device)
        return real(self, path, threads, "cpu")

    monkeypatch.setattr(torch.cuda, "Event", Mark)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(PyTorch, "open", on_the_fake)
    monkeypatch.setattr(PyTorch, "device_uuid", lambda self, device: f"GPU-of-{device}")
    monkeypatch.setattr(bench, "find_counter", no_counter)
    profile = DeviceProfile.parse("cuda")
    assert (profile.place, profile.baseline_place) == (("torch", "cuda"), ("torch", "cuda"))
    assert isinstance(runtime("torch").clock("cuda"), DeviceClock)
    file = tmp_path / "model.onnx"
    file.write_bytes(one("Relu", {"x": floats(2, 3)}, {}))
    recorded.clear()
    schedule = Schedule(block_s=0.003, settle_s=0.0, min_pairs=4, max_pairs=4)
    loaded = bench.Bench.load(file, {"x": floats(2, 3)}, profile, schedule, lambda seconds: None)
    found = loaded.measure(file)
    assert asked == ["GPU-of-cuda"]
    assert set(opened) == {"cuda"}
    assert found["latency"]["candidate_ms"] == pytest.approx(1.0)  # by the fake events alone
    assert recorded[::2] == ["record"] * (len(recorded) // 2)
    assert recorded[1::2] == ["synchronize"] * (len(recorded) // 2)


def test_cuda_offers_what_computes_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    names = [kind.name for kind in default_space(runtime="torch", device="cuda").conversions]
    assert names == ["fp16", "bf16"]
    assert [kind.name for kind in default_space(runtime="torch").conversions] == ["bf16"]


def test_quantisation_aware_training_is_not_offered_where_its_file_does_not_run() -> None:
    """It implies static INT8."""
    assert QuantizeAware in default_space().body
    assert set(default_space().body) - set(default_space(runtime="torch").body) == {QuantizeAware}
    with pytest.raises(UserError, match="'torch' on cpu does not run qat as promised"):
        check_runs(SearchSpace((Train, QuantizeAware), ()), "torch")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_real_device_computes_the_same() -> None:
    task = CASES["residual"]()
    data = export_onnx(task.model, task.example).SerializeToString()
    feeds = to_feeds(task.example)
    expected = OnnxRuntime().open(data, 1).run(feeds)[0]
    found = PyTorch().open(data, 1, "cuda").run(feeds)[0]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    clock = runtime("torch").clock("cuda")
    assert clock() <= clock()
