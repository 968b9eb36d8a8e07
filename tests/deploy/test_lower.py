from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization as ort_quantization

from petra_optuna.deploy import OnnxRuntimeModel, export_onnx, lower
from petra_optuna.deploy.checks import (
    check_batch_norms,
    check_kernels,
    check_size,
    check_weights,
    stored_bytes,
)
from petra_optuna.deploy.probe import probe
from petra_optuna.errors import LoweringFailed, OperationFailed, RuntimeFailed
from petra_optuna.operations.weight_only import store_int8
from petra_optuna.pipeline import Applied
from petra_optuna.runtimes import OnnxRuntime

WEIGHTED = OnnxRuntime.weighted


def conversion(function, **report):
    """An operation that converts by ``function``."""
    return SimpleNamespace(
        name="double", apply=lambda model, context: Applied(function(model), {"changed": True, **report})
    )


def test_a_float_file_is_one_file_described_truly(model, images, tmp_path):
    path = tmp_path / "model.onnx"
    artifact = lower(model, images, path)
    data = path.read_bytes()
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]
    assert (artifact.path, artifact.size_bytes) == (path, len(data))
    assert artifact.sha256 == hashlib.sha256(data).hexdigest()
    assert artifact.lowering["precision"] == "float32"
    assert artifact.lowering["conversion"] is None
    assert json.loads(json.dumps(artifact.lowering)) == artifact.lowering
    with torch.inference_mode():
        expected = model(*images).numpy()
    np.testing.assert_allclose(OnnxRuntimeModel(path).run({"input": images[0].numpy()}), expected, atol=1e-5)


def test_the_file_holds_the_weights_and_little_else(residual, images, tmp_path):
    parameters = sum(parameter.numel() for parameter in residual.parameters())
    size = lower(residual, images, tmp_path / "model.onnx").size_bytes
    assert 4 * parameters * 0.98 < size < 4 * parameters * 1.02 + 6_000


def test_a_conversion_gets_the_float_file_and_its_report_is_kept(residual, images, tmp_path):
    seen = []

    def convert(proto):
        seen.append(proto)
        proto.metadata_props.add(key="path", value=str(tmp_path))
        return proto

    context = object()
    artifact = lower(residual, images, tmp_path / "model.onnx", conversion(convert, note=1), context)
    assert artifact.lowering["conversion"] == {"op": "double", "changed": True, "note": 1}
    assert Counter(node.op_type for node in seen[0].graph.node)["Conv"] == 6
    assert str(tmp_path).encode() not in artifact.path.read_bytes()


def test_nothing_is_written_when_a_promise_is_broken(residual, images, tmp_path):
    broken = conversion(lambda proto: proto, precision="int8_static", left_float=[])
    with pytest.raises(LoweringFailed, match="no INT8 kernel"):
        lower(residual, images, tmp_path / "model.onnx", broken)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_conversion_keeps_its_reason_and_an_earlier_file(residual, images, tmp_path):
    def fail(proto):
        raise OperationFailed("no can do")

    path = tmp_path / "model.onnx"
    path.write_bytes(b"earlier")
    with pytest.raises(OperationFailed, match="no can do"):
        lower(residual, images, path, conversion(fail))
    assert path.read_bytes() == b"earlier"


def test_the_path_must_be_that_of_an_onnx_file(residual, images, tmp_path):
    with pytest.raises(ValueError, match=r"\.onnx"):
        lower(residual, images, tmp_path / "model.bin")


def test_outputs_that_overflow_are_refused(residual, images, tmp_path):
    def overflow(proto):
        for tensor in proto.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.ndim > 1 and array.dtype == np.float32:
                tensor.CopyFrom(numpy_helper.from_array(array * np.float32(1e30), tensor.name))
        return proto

    with pytest.raises(LoweringFailed, match="not finite"):
        lower(residual, images, tmp_path / "model.onnx", conversion(overflow))


class Samples:
    """Calibration data for ONNX Runtime's own tool."""

    def __init__(self, array):
        self.rest = iter([{"input": array}])

    def get_next(self):
        return next(self.rest, None)


def quantize(proto, tmp_path, activations, **extra):
    """What a user gets from ONNX Runtime's tool with these activations."""
    path = tmp_path / "quantized.onnx"
    ort_quantization.quantize_static(
        copy.deepcopy(proto),  # the tool moves the weights out of what it is given
        path,
        Samples(np.random.default_rng(0).standard_normal((32, 1, 8, 8)).astype(np.float32)),
        quant_format=ort_quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=activations,
        weight_type=ort_quantization.QuantType.QInt8,
        extra_options=extra,
    )
    quantized = onnx.load(path)
    path.unlink()
    return quantized


def test_a_file_with_signed_activations_runs_in_float_and_is_caught(residual, images, tmp_path):
    def signed(proto):
        return quantize(proto, tmp_path, ort_quantization.QuantType.QInt8)

    claim = {"precision": "int8_static", "left_float": []}
    with pytest.raises(LoweringFailed, match="run in float in the INT8 file"):
        lower(residual, images, tmp_path / "model.onnx", conversion(signed, **claim))
    unsigned = quantize(export_onnx(residual, images), tmp_path, ort_quantization.QuantType.QUInt8)
    check_kernels(OnnxRuntimeModel(unsigned).kernels(), WEIGHTED, "int8_static", claim)


def test_what_the_report_allows_may_run_in_float():
    kernels = Counter({"QLinearConv": 3, "Conv": 1})
    left = [{"name": "a", "op": "Conv", "reason": "because"}]
    check_kernels(kernels, WEIGHTED, "int8_static", {"left_float": left})
    with pytest.raises(LoweringFailed, match="1 of 4 weighted kernels"):
        check_kernels(kernels, WEIGHTED, "int8_static", {"left_float": [{**left[0], "op": "ConvTranspose"}]})


def test_a_float_copy_of_a_quantised_weight_is_caught(residual, images, tmp_path):
    proto = export_onnx(residual, images)
    unsigned = ort_quantization.QuantType.QUInt8
    check_weights(quantize(proto, tmp_path, unsigned))
    with pytest.raises(LoweringFailed, match="float copy"):
        check_weights(quantize(proto, tmp_path, unsigned, AddQDQPairToWeight=True))


def test_a_float_copy_under_another_name_is_caught(residual, images, tmp_path):
    quantized = quantize(export_onnx(residual, images), tmp_path, ort_quantization.QuantType.QUInt8)
    graph = quantized.graph
    weight = export_onnx(residual, images).graph.initializer[0]
    graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(weight), "copy"))
    graph.node.append(helper.make_node("Identity", ["copy"], ["read"]))
    with pytest.raises(LoweringFailed, match=f"'{weight.name}.*float copy of it, 'copy'"):
        check_weights(quantized)


def test_a_weight_that_is_said_to_be_stored_in_int8_must_be(residual, images):
    proto = export_onnx(residual, images)
    name = max(proto.graph.initializer, key=lambda tensor: np.prod(tensor.dims)).name
    with pytest.raises(LoweringFailed, match=f"does not store '{name}' in INT8"):
        check_weights(proto, {"weight_only": [name]})
    store_int8(proto, ["Conv"])
    check_weights(proto, {"weight_only": [name]})


def test_a_linear_layer_in_float_in_a_dynamic_file_is_caught():
    kernels = Counter({"DynamicQuantizeMatMul": 1, "Conv": 4, "MatMul": 1})
    left = [{"name": "a", "op": "MatMul", "reason": "its second operand is no weight"}]
    check_kernels(kernels, WEIGHTED, "int8_dynamic", {"left_float": left})
    with pytest.raises(LoweringFailed, match="1 of 2 weighted kernels"):
        check_kernels(kernels, WEIGHTED, "int8_dynamic", {"left_float": []})


def test_a_layer_chosen_to_be_in_float_must_run_so():
    left = [{"name": "a", "op": "Conv", "reason": "kept in float", "error_after": 0.1}]
    check_kernels(Counter({"QLinearConv": 3, "Conv": 1}), WEIGHTED, "int8_static", {"left_float": left})
    with pytest.raises(LoweringFailed, match="1 layers were kept in float, 0 run so"):
        check_kernels(Counter({"QLinearConv": 4}), WEIGHTED, "int8_static", {"left_float": left})


def test_a_file_of_weights_only_promises_no_kernels():
    check_kernels(Counter({"GRU": 1}), WEIGHTED, "int8_weights", {})


def test_an_int8_file_that_stores_no_less_is_caught(residual, images):
    proto = export_onnx(residual, images)
    size = stored_bytes(proto)
    assert size == sum(4 * int(np.prod(t.dims)) for t in proto.graph.initializer if t.data_type == 1) + sum(
        8 * int(np.prod(t.dims)) for t in proto.graph.initializer if t.data_type == TensorProto.INT64
    )
    check_size(proto, size, {})
    check_size(proto, size + 1, {"precision": "int8_static"})
    with pytest.raises(LoweringFailed, match=f"stores {size} bytes, the float one {size}"):
        check_size(proto, size, {"precision": "int8_weights"})
    store_int8(proto, ["Conv"])
    check_size(proto, size, {"precision": "int8_weights"})


def test_a_weight_that_nothing_reads_is_caught(residual, images):
    proto = export_onnx(residual, images)
    check_weights(proto)
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "forgotten"))
    with pytest.raises(LoweringFailed, match="forgotten"):
        check_weights(proto)


def batch_norm_after(kind, shared):
    """Input -> ``kind`` -> batch norm; ``shared``: its output or its weight is read elsewhere as well."""
    nodes = [
        helper.make_node(kind, ["input", "weight"], ["inner"], name="layer"),
        helper.make_node("BatchNormalization", ["inner", *["stat"] * 4], ["output"], name="norm"),
    ]
    outputs = ["output", *[{"output": "inner", "weight": "twice"}[part] for part in shared]]
    if "weight" in shared:
        nodes.insert(0, helper.make_node(kind, ["input", "weight"], ["twice"], name="call"))
    return helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 4, 1, 1])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        )
    )


def test_a_batch_norm_left_behind_a_layer_is_caught():
    with pytest.raises(LoweringFailed, match="'norm' is not folded into the Conv"):
        check_batch_norms(batch_norm_after("Conv", shared=()))
    check_batch_norms(batch_norm_after("Conv", shared=("output",)))
    check_batch_norms(batch_norm_after("Conv", shared=("weight",)))
    check_batch_norms(batch_norm_after("Add", shared=()))
    computed = batch_norm_after("Conv", shared=())
    computed.graph.node.insert(0, helper.make_node("Abs", ["stored"], ["weight"], name="compute"))
    check_batch_norms(computed)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crash by signal 11"),
        ("time.sleep(60)", "no answer in 2 s"),
        ("sys.exit('out of memory')", "out of memory"),
    ],
)
def test_a_runtime_that_dies_on_the_file_fails_the_trial_only(tmp_path, body, reason):
    child = tmp_path / "child.py"
    child.write_text(f"import os, signal, sys, time\n{body}\n")
    with pytest.raises(LoweringFailed, match=reason):
        probe(b"", command=(sys.executable, str(child)), timeout_s=2)


def test_a_file_that_is_none_is_one_line():
    for open_file in (OnnxRuntimeModel, probe):
        with pytest.raises((RuntimeFailed, LoweringFailed), match="INVALID_PROTOBUF") as caught:
            open_file(b"this is no model")
        assert "\n" not in str(caught.value)


def test_wrong_inputs_are_one_line(residual, images):
    runtime = OnnxRuntimeModel(export_onnx(residual, images))
    with pytest.raises(RuntimeFailed, match="cannot run"):
        runtime.run({"input": np.zeros((1, 2, 8, 8), np.float32)})
