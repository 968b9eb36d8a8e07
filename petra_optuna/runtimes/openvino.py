"""OpenVINO on the CPU, an extra: reads the same ONNX files; often the faster one at large batches."""

from __future__ import annotations

import importlib
import importlib.util
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from petra_optuna.errors import RuntimeFailed, one_line
from petra_optuna.runtimes.base import (
    ARITHMETIC,
    RunScript,
    Runtime,
    Session,
    WeightedKernels,
    typed_kernels,
)

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
"""Arithmetic that a file asks for -> OpenVINO's precision hint."""
_FLOATS, _CONVOLUTIONS = ("f32", "f16", "bf16"), ("Convolution", "Deconvolution")
_LOAD = f"""\
core = openvino.Core()
model = core.read_model(file)
# The file says in which type it was measured; OpenVINO's default is another.
key = ["framework", "{ARITHMETIC}"]
half = model.has_rt_info(key) and model.get_rt_info(key).value == "bfloat16"
half = half and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
hints = {{"INFERENCE_PRECISION_HINT": "bf16" if half else "f32", "INFERENCE_NUM_THREADS": threads}}
session = core.compile_model(model, "CPU", hints)
names = [item.any_name for item in session.inputs]"""


class OpenVino(Runtime):
    """OpenVINO on the CPU, in FP32, INT8, and BF16 where the CPU has it.

    A file computes in BF16 only if its metadata asks for it. OpenVINO's default is BF16 wherever the CPU can.
    """

    name: ClassVar[str] = "openvino"
    package: ClassVar[str] = "openvino"
    suffix: ClassVar[str] = ".onnx"
    extra: ClassVar[str | None] = "openvino"
    weighted: ClassVar[WeightedKernels] = WeightedKernels(
        convolution=typed_kernels(_CONVOLUTIONS, _FLOATS),
        linear=typed_kernels(["FullyConnected", "MatMul"], _FLOATS),
        recurrent=typed_kernels(["RNNSeq", "RNNCell"], _FLOATS),
        int8=typed_kernels([*_CONVOLUTIONS, "FullyConnected"], ["i8", "u8"]),
    )

    def precisions(self, device: str = "cpu") -> tuple[str, ...]:
        """FP32 and INT8 on the CPU, BF16 where it has the instructions."""
        if device != "cpu":
            return ()
        capabilities = _library().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return ("float32", "int8", *(("bfloat16",) if "BF16" in capabilities else ()))

    def formats(self, device: str = "cpu") -> tuple[str, ...]:
        """Static INT8, FP16 that computes in FP32, BF16 that computes in BF16; not dynamic INT8.

        OpenVINO multiplies in float what ONNX Runtime's dynamic quantisation made.
        """
        if device != "cpu":
            return ()
        nncf = ("int8_nncf",) if importlib.util.find_spec("nncf") is not None else ()
        bfloat16 = ("bfloat16",) if "bfloat16" in self.precisions(device) else ()
        return ("float32", "float16", *bfloat16, "int8_static", *nncf)

    def open(self, path: Path | bytes, threads: int, device: str = "cpu") -> OpenVinoSession:
        """Load a file, or the bytes of one, for the arithmetic that it asks for."""
        self.check_device(device)
        core = _library().Core()
        try:
            model = core.read_model(path)
            arithmetic = _arithmetic(model)
            if arithmetic not in self.precisions():  # it would emulate what the CPU does not have
                arithmetic = "float32"
            compiled = core.compile_model(model, "CPU", _config(arithmetic, threads))
        except RuntimeError as error:
            raise RuntimeFailed(f"OpenVINO cannot load the file: {_reason(error)}") from error
        return OpenVinoSession(compiled)

    def inspect(self, path: Path, device: str = "cpu") -> tuple[Session, Counter[str]]:
        """Load a file and count its kernels."""
        session = self.open(path, 1, device)
        return session, session.kernels()

    def run_script(self, device: str = "cpu") -> RunScript:
        """OpenVINO's own compiled model, in the arithmetic that the file asks for."""
        return RunScript(imports="import openvino", load=_LOAD, run="session(feeds)")


class OpenVinoSession:
    """A compiled model with one inference request, which every call uses."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Copies of the outputs, since the request's own buffers are used again."""
        try:
            outputs = self._request.infer(dict(feeds), share_inputs=True)
        except RuntimeError as error:
            raise RuntimeFailed(f"OpenVINO cannot run the file: {_reason(error)}") from error
        return [np.asarray(array) for array in outputs.values()]

    def kernels(self) -> Counter[str]:
        """How often each kernel occurs in the graph that runs, by kind and precision: ``Convolution.u8``.

        The precision is that of the arithmetic; INT8 is named after its activations, ``i8`` or ``u8``.
        """
        described = (node.get_rt_info() for node in self._compiled.get_runtime_model().get_ordered_ops())
        return Counter(f"{info['layerType'].value}.{info['runtimePrecision'].value}" for info in described)


def _library() -> Any:
    return importlib.import_module("openvino")


def _arithmetic(model: Any) -> str:
    key = ["framework", ARITHMETIC]
    asked = str(model.get_rt_info(key).value) if model.has_rt_info(key) else "float32"
    if asked not in _HINTS:
        raise RuntimeFailed(f"OpenVINO cannot load the file: it asks for arithmetic in {asked!r}")
    return asked


def _config(arithmetic: str, threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": _HINTS[arithmetic],
        # The process is pinned already where it matters.
        "ENABLE_CPU_PINNING": False,
    }


def _reason(error: RuntimeError) -> str:
    """OpenVINO's text without the lines that name a line of its source."""
    lines = [line for line in str(error).splitlines() if line.strip() and "Exception from" not in line]
    return one_line(RuntimeError("\n".join(lines)))
