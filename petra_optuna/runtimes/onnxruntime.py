"""ONNX Runtime on the CPU: the default, and the runtime of the baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state

from petra_optuna.errors import RuntimeFailed, one_line
from petra_optuna.runtimes.base import RunScript, Runtime, Session, WeightedKernels
from petra_optuna.scratch import scratch_folder

_ERRORS: tuple[type[Exception], ...] = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoSuchFile,
    state.NotImplemented,
    state.RuntimeException,
)
"""Errors that ONNX Runtime raises; the classes share no base of their own."""


class OnnxRuntime(Runtime):
    """ONNX Runtime on the CPU. A file stored in FP16 or BF16 computes in FP32."""

    name: ClassVar[str] = "onnxruntime"
    package: ClassVar[str] = "onnxruntime"
    suffix: ClassVar[str] = ".onnx"
    weighted: ClassVar[WeightedKernels] = WeightedKernels(
        convolution=frozenset({"Conv", "FusedConv", "NhwcFusedConv"}),
        linear=frozenset({"Gemm", "FusedGemm", "MatMul", "FusedMatMul", "TransposeMatMul"}),
        recurrent=frozenset({"GRU", "LSTM", "RNN"}),
        int8=frozenset(
            {
                "QLinearConv",
                "QGemm",
                "QLinearMatMul",
                "ConvInteger",
                "MatMulInteger",
                "MatMulIntegerToFloat",
                "DynamicQuantizeMatMul",
                "DynamicQuantizeLSTM",
            }
        ),
    )

    def precisions(self, device: str = "cpu") -> tuple[str, ...]:
        """FP32 and INT8 on the CPU."""
        return ("float32", "int8") if device == "cpu" else ()

    def formats(self, device: str = "cpu") -> tuple[str, ...]:
        """Its own INT8 quantisation, and FP16 and BF16 as storage."""
        return ("float32", "float16", "bfloat16", "int8_static", "int8_dynamic") if device == "cpu" else ()

    def open(self, path: Path | bytes, threads: int, device: str = "cpu") -> Session:
        """Load a file, or the bytes of one."""
        self.check_device(device)
        return _load(path, _options(threads))

    def inspect(self, path: Path, device: str = "cpu") -> tuple[Session, Counter[str]]:
        """Load a file with all optimisations and count the operators that are left, a loop's once."""
        self.check_device(device)
        import onnx  # takes a moment that the measuring process does not need

        options = _options(threads=1)
        options.log_severity_level = 3  # a warning says that the optimised file fits this machine only
        with scratch_folder("inspect") as folder:
            optimised = Path(folder, "optimised.onnx")
            options.optimized_model_filepath = str(optimised)
            session = _load(path, options)
            return session, Counter(_operators(onnx.load(optimised).graph))

    def run_script(self, device: str = "cpu") -> RunScript:
        """ONNX Runtime's own session with its defaults."""
        return RunScript(
            imports="import onnxruntime",
            load="options = onnxruntime.SessionOptions()\n"
            "options.intra_op_num_threads = threads\n"
            'session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])\n'
            "names = [item.name for item in session.get_inputs()]",
            run="session.run(None, feeds)",
        )


class _Session:
    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        try:
            outputs: list[np.ndarray] = self._session.run(None, dict(feeds))
        except _ERRORS as error:
            raise RuntimeFailed(f"ONNX Runtime cannot run the file: {one_line(error)}") from error
        return outputs


def _operators(graph: Any) -> Iterator[str]:
    """Operators of a graph and of the graphs inside its nodes."""
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _operators(attribute.g)


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return options


def _load(path: Path | bytes, options: ort.SessionOptions) -> _Session:
    source = str(path) if isinstance(path, Path) else path
    try:
        return _Session(ort.InferenceSession(source, options, providers=["CPUExecutionProvider"]))
    except _ERRORS as error:
        raise RuntimeFailed(f"ONNX Runtime cannot load the file: {one_line(error)}") from error
