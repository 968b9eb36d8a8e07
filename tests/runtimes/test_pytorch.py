"""The operators against ONNX Runtime, on the files of every model that the operations must work on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from conformance.models import CASES, LARGE
from onnx import helper, numpy_helper
from support.samples import Samples

from petra_optuna.deploy import export_onnx
from petra_optuna.errors import RuntimeFailed, StudyError, UserError
from petra_optuna.measurement import DeviceProfile, Schedule, bench
from petra_optuna.nn.inputs import take, to_feeds
from petra_optuna.operations import Half, QuantizeAware, Train, check_runs, default_space
from petra_optuna.pipeline import SearchSpace
from petra_optuna.runtimes import OnnxRuntime, pytorch, runtime
from petra_optuna.runtimes.device_clock import DeviceClock
from petra_optuna.runtimes.pytorch import PyTorch, PyTorchSession


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in CASES]
)
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
    results = ["output", "indices"] if kind == "TopK" else ["output"]
    node = helper.make_node(kind, [*inputs, *stored], results, **attributes)
    output = onnx.ValueInfoProto(name="output")
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items() if name]
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
    ("Max", {"x": floats(3, 4), "y": floats(4)[::-1].copy()}, {"z": np.float32(0.1)}, {}),
    ("Min", {"x": floats(3, 4)}, {"z": np.float32(0.1)}, {}),
    ("ArgMax", {"x": floats(3, 4)}, {}, {"axis": 1, "keepdims": 0}),
    ("ArgMin", {"x": floats(3, 4)}, {}, {"axis": -1}),
    ("TopK", {"x": floats(3, 7)}, {"k": ints(3)}, {"largest": 0}),
    ("CumSum", {"x": floats(3, 4)}, {"axis": np.int64(1)}, {"reverse": 1, "exclusive": 1}),
    ("CumSum", {"x": floats(3, 4)}, {"axis": np.int64(-2)}, {}),
    ("Einsum", {"x": floats(2, 3, 4), "y": floats(2, 5, 4)}, {}, {"equation": "bij,bkj->bik"}),
    ("Mod", {"x": floats(9)}, {"y": np.float32(0.3)}, {"fmod": 1}),
    ("ReduceMin", {"x": floats(2, 3, 4)}, {"axes": ints(-1)}, {}),
    ("ReduceL1", {"x": floats(2, 3, 4)}, {"axes": ints(1)}, {"keepdims": 0}),
    ("ReduceL2", {"x": floats(2, 3, 4)}, {"axes": ints(1, 2)}, {}),
    ("ReduceSumSquare", {"x": floats(2, 3, 4)}, {}, {}),
    ("ReduceLogSumExp", {"x": floats(2, 3, 4)}, {"axes": ints(2)}, {}),
    ("ReduceProd", {"x": floats(2, 3, 4)}, {"axes": ints(0, -1)}, {"keepdims": 0}),
    ("ReduceMean", {"x": floats(2, 3)}, {}, {"noop_with_empty_axes": 1}),
    ("Pad", {"x": floats(2, 3, 4)}, {"p": ints(0, 1, 2, 0, 0, -1), "v": np.float32(7)}, {}),
    ("Pad", {"x": floats(2, 3, 4)}, {"p": ints(0, 0, 2, 0, 0, 3)}, {"mode": "reflect"}),
    ("Pad", {"x": floats(2, 3, 4)}, {"p": ints(1, 0, 2, 0, 4, 1)}, {"mode": "edge"}),
    ("Pad", {"x": floats(2, 3, 4)}, {"p": ints(0, 0, 2, 0, 0, 3)}, {"mode": "wrap"}),
    ("Tile", {"x": floats(2, 3)}, {"r": ints(2, 3)}, {}),
    ("DepthToSpace", {"x": floats(2, 8, 3, 4)}, {}, {"blocksize": 2}),
    ("DepthToSpace", {"x": floats(2, 8, 3, 4)}, {}, {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", {"x": floats(2, 3, 4, 6)}, {}, {"blocksize": 2}),
    ("Range", {"s": np.array(1), "l": np.array(9), "d": np.array(3)}, {}, {}),
    ("Trilu", {"x": floats(4, 5)}, {"k": np.int64(1)}, {"upper": 0}),
    ("GatherElements", {"x": floats(3, 4)}, {"i": np.array([[0, -1], [1, 2], [3, 3]])}, {"axis": 1}),
    ("ScatterND", {"x": floats(4, 3), "i": np.array([[2], [0]]), "u": floats(2, 3)}, {}, {}),
    ("Celu", {"x": floats(40)}, {}, {"alpha": 0.5}),
    ("Elu", {"x": floats(40)}, {}, {"alpha": 0.5}),
    ("Selu", {"x": floats(40)}, {}, {}),
    ("Mish", {"x": floats(40)}, {}, {}),
    ("PRelu", {"x": floats(2, 3, 4)}, {"s": floats(3, 1)}, {}),
    ("Softplus", {"x": 30 * floats(40)}, {}, {}),
    ("Softsign", {"x": floats(40)}, {}, {}),
    ("LogSoftmax", {"x": floats(3, 4, 5)}, {}, {"axis": 1}),
    ("InstanceNormalization", {"x": floats(2, 3, 5)}, {"s": floats(3), "b": floats(3)}, {"epsilon": 1e-2}),
    ("GroupNormalization", {"x": floats(2, 6, 5)}, {"s": floats(3), "b": floats(3)}, {"num_groups": 3}),
    ("ConvTranspose", {"x": floats(2, 4, 5)}, {"w": floats(4, 2, 3)}, {"strides": [2], "pads": [0, 1]}),
    ("ConvTranspose", {"x": floats(2, 4, 5, 5)}, {"w": floats(4, 2, 3, 3), "b": floats(4)},
     {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0], "dilations": [1, 2]}),
    ("MaxPool", {"x": floats(1, 2, 5, 5, 5)}, {}, {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}),
    ("GlobalMaxPool", {"x": floats(2, 3, 4, 5)}, {}, {}),
    *(("Resize", {"x": floats(2, 3, 4, 5)}, {"": np.zeros(0, np.float32), "s": np.float32([1, 1, 2, 1.6])},
       {"mode": mode, "coordinate_transformation_mode": place, "nearest_mode": "floor"})
      for mode, place in (("nearest", "asymmetric"), ("linear", "half_pixel"), ("linear", "align_corners"),
                          ("cubic", "half_pixel"))),
    *((kind, {"x": floats(9)}, {}, {}) for kind in ("Sin", "Cos", "Floor", "Ceil", "Sign", "Round", "Atan")),
    *((kind, {"x": floats(9)}, {"y": floats(9)}, {}) for kind in ("GreaterOrEqual", "LessOrEqual")),
    *((kind, {"x": floats(9) > 0, "y": floats(9) > 1}, {}, {}) for kind in ("And", "Or", "Xor")),
    ("Slice", {"x": floats(6, 8)}, {"s": ints(-4), "e": ints(-(2**63)), "a": ints(0)}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "inputs", "stored", "attributes"), ONES, ids=[row[0] for row in ONES])
def test_an_operator_is_that_of_the_standard(
    kind: str, inputs: dict[str, np.ndarray], stored: dict[str, np.ndarray], attributes: dict[str, object]
) -> None:
    data = one(kind, inputs, stored, **attributes)
    found, expected = (each.open(data, 1).run(inputs)[0] for each in (PyTorch(), OnnxRuntime()))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_a_recurrent_layer_reads_in_its_direction_and_refuses_lengths(kind: str, direction: str) -> None:
    ways, gates = (2 if direction == "bidirectional" else 1), (3 if kind == "GRU" else 4)
    rows = gates * 5
    stored = {"w": floats(ways, rows, 4), "r": floats(ways, rows, 5), "b": floats(ways, 2 * rows)}
    more = {"linear_before_reset": 1} if kind == "GRU" else {}
    inputs = {"x": floats(6, 3, 4)}
    for lengths in (None, np.int32([6, 6, 6]), np.int32([6, 2, 3])):
        given = stored if lengths is None else {**stored, "l": lengths}
        data = one(kind, inputs, given, hidden_size=5, direction=direction, **more)
        if lengths is not None and lengths.min() < 6:
            with pytest.raises(RuntimeFailed, match=f"a {kind} over sequences of several lengths"):
                PyTorch().open(data, 1).run(inputs)
            continue
        found, expected = (each.open(data, 1).run(inputs)[0] for each in (PyTorch(), OnnxRuntime()))
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
    half = Half().apply(exported, Samples(torch.ones(2, 6))).model  # type: ignore[arg-type]
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
        lambda: DeviceProfile.parse("cuda:1"),
        lambda: runtime("torch").open(one("Relu", {"x": floats(3)}, {}), 1, "cuda"),
    ]
    for ask in asking:
        with pytest.raises(UserError, match="'torch' sees no cuda device here") as caught:
            ask()
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="runs on cpu, not on 'cuda:1'"):
        DeviceProfile.parse("cuda:1@onnxruntime")
    for device in ("cuda:", "cuda:x", "cpu:2"):
        with pytest.raises(UserError, match=f"runs on cpu and cuda, not on '{device}'"):
            runtime("torch").check_device(device)
    with pytest.raises(StudyError, match="unknown device 'npu'"):
        DeviceProfile.parse("npu")


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_on_cuda_candidates_and_baseline_run_in_pytorch_by_device_events(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str
) -> None:
    """With a device that is faked: its events tell the time, and every file is opened on it."""
    waited: list[str] = []
    opened: list[str] = []
    asked: list[str] = []

    def no_counter(gpu: str) -> str:
        asked.append(gpu)
        return "none"

    class Mark:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            self.queue = "none"

        def synchronize(self) -> None:
            waited.append(self.queue)

        def elapsed_time(self, end: object) -> float:
            return 1.0

    class Stream:
        def __init__(self, device: str) -> None:
            self.device = device

        def record_event(self, mark: Mark) -> Mark:
            mark.queue = self.device
            return mark

    def on_the_fake(proto: onnx.ModelProto, threads: int, device: str) -> PyTorchSession:
        opened.append(device)
        return PyTorchSession(proto, threads, "cpu")

    def properties(device: str) -> SimpleNamespace:
        return SimpleNamespace(uuid=f"of-{device}")

    monkeypatch.setattr(torch.cuda, "Event", Mark)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(pytorch, "PyTorchSession", on_the_fake)
    monkeypatch.setattr(bench, "find_counter", no_counter)
    profile = DeviceProfile.parse(device)
    assert isinstance(runtime("torch").clock(device), DeviceClock)
    file = tmp_path / "model.onnx"
    file.write_bytes(one("Relu", {"x": floats(2, 3)}, {}))
    waited.clear()
    schedule = Schedule(block_s=0.003, settle_s=0.0, min_pairs=4, max_pairs=4)
    loaded = bench.Bench.load(file, {"x": floats(2, 3)}, profile, schedule, lambda seconds: None)
    found = loaded.measure(file)
    assert asked == [f"GPU-of-{device}"]
    assert set(opened) == {device}
    assert found["latency"]["candidate_ms"] == pytest.approx(1.0)  # by the fake events alone
    assert set(waited) == {device}


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
