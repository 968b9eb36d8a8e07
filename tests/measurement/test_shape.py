"""A shape's signature follows all that a latency depends on, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from petra_optuna.errors import MeasurementFailed
from petra_optuna.measurement import shape_signature


def _model(
    weights: np.ndarray,
    *,
    operator: str = "MatMul",
    exponent: float = 2.0,
    target: tuple[int, ...] = (-1, 2, 2),
    prefix: str = "",
    constant: bool = False,
) -> onnx.ModelProto:
    tensors = {
        "w": weights,
        "exponent": np.array(exponent, dtype=np.float32),
        "target": np.array(target, dtype=np.int64),
    }
    given = [numpy_helper.from_array(value, f"{prefix}{name}") for name, value in tensors.items()]
    nodes = [
        helper.make_node(operator, [f"{prefix}x", f"{prefix}w"], [f"{prefix}h"]),
        helper.make_node("Pow", [f"{prefix}h", f"{prefix}exponent"], [f"{prefix}p"]),
        helper.make_node("Reshape", [f"{prefix}p", f"{prefix}target"], [f"{prefix}y"]),
    ]
    if constant:
        nodes = [
            *(helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in given),
            *nodes,
        ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(f"{prefix}x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info(f"{prefix}y", TensorProto.FLOAT, None)],
        [] if constant else given,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


WEIGHTS = np.arange(16, dtype=np.float32).reshape(4, 4)


@pytest.fixture
def signature(tmp_path: Path) -> Callable[..., str]:
    def of(model: onnx.ModelProto, *setting: object) -> str:
        onnx.save(model, str(tmp_path / "file.onnx"))
        return shape_signature(tmp_path / "file.onnx", *setting)

    return of


def test_weights_and_names_do_not_count(signature: Callable[..., str]) -> None:
    first = signature(_model(WEIGHTS))
    assert signature(_model(-3 * WEIGHTS)) == first
    assert signature(_model(WEIGHTS, prefix="other.")) == first


OTHERS = {
    "operator": _model(WEIGHTS, operator="Add"),
    "shape of a weight": _model(WEIGHTS[:, :2], target=(-1, 2, 1)),
    "type of a weight": _model(WEIGHTS.astype(np.float16)),
    "target of a reshape": _model(WEIGHTS, target=(-1, 4, 1)),
    "exponent": _model(WEIGHTS, exponent=0.5),
}


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("constant", [False, True])
def test_what_a_latency_depends_on_counts(signature: Callable[..., str], case: str, constant: bool) -> None:
    assert signature(OTHERS[case]) != signature(_model(WEIGHTS, constant=constant))


def test_constants_may_stand_in_nodes(signature: Callable[..., str]) -> None:
    first = signature(_model(WEIGHTS, constant=True))
    assert signature(_model(2 * WEIGHTS, constant=True)) == first
    assert signature(_model(WEIGHTS, constant=True, target=(-1, 4, 1))) != first
    assert signature(_model(WEIGHTS, constant=True, exponent=0.5)) != first


def test_the_setting_counts(signature: Callable[..., str]) -> None:
    model = _model(WEIGHTS)
    assert signature(model, {"threads": 1}) == signature(model, {"threads": 1})
    assert signature(model, {"threads": 1}) != signature(model, {"threads": 2})


@pytest.mark.parametrize("content", [b"no graph", None])
def test_a_file_that_is_none_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "file.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MeasurementFailed, match=r"file\.onnx: cannot load the file"):
        shape_signature(path)
