"""Running a file in ONNX Runtime on the CPU, and seeing what it really runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state

from petra_optuna.deploy.probe import probe
from petra_optuna.errors import LoweringFailed, one_line

RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoSuchFile,
    state.NotImplemented,
    state.RuntimeException,
)
"""What ONNX Runtime raises; the classes share no base of their own."""


class OnnxRuntimeModel:
    """A session on the CPU.

    Args:
        model: The file, its path or its parsed form.
        threads: Of the session; 1 for results that do not depend on the machine's load.

    Raises:
        LoweringFailed: When ONNX Runtime cannot load the file.
    """

    def __init__(self, model: bytes | Path | onnx.ModelProto, threads: int = 1) -> None:
        self._data = _read(model)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            self._session = ort.InferenceSession(self._data, options, providers=["CPUExecutionProvider"])
        except RUNTIME_ERRORS as error:
            raise LoweringFailed(f"ONNX Runtime cannot load the file: {one_line(error)}") from error

    def run(self, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        """The file's first output.

        Args:
            feeds: One array per input name, batch first.

        Raises:
            LoweringFailed: When the file does not run on these inputs.
        """
        try:
            output: np.ndarray = self._session.run(None, dict(feeds))[0]
        except RUNTIME_ERRORS as error:
            raise LoweringFailed(f"ONNX Runtime cannot run the file: {one_line(error)}") from error
        return output

    def kernels(self) -> Counter[str]:
        """How often each operator type occurs in the session's optimised graph, the one that runs.

        Raises:
            LoweringFailed: When the runtime dies on the file.
        """
        return probe(self._data).kernels


def _read(model: bytes | Path | onnx.ModelProto) -> bytes:
    if isinstance(model, onnx.ModelProto):
        data: bytes = model.SerializeToString()
        return data
    return model.read_bytes() if isinstance(model, Path) else model
