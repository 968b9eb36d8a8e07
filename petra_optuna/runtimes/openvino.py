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
from petra_optuna.runtimes.base import ARITHMETIC, Runtime, Session

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
"""By the arithmetic that a file asks for."""


class OpenVino(Runtime):
    """Compiled models on the CPU, in FP32, INT8, and BF16 where the CPU has it.

    A file computes in BF16 only if it says so. OpenVINO by itself does wherever the CPU can.
    """

    name: ClassVar[str] = "openvino"
    package: ClassVar[str] = "openvino"
    suffix: ClassVar[str] = ".onnx"
    extra: ClassVar[str | None] = "openvino"

    def precisions(self, device: str = "cpu") -> tuple[str, ...]:
        """FP32 and INT8 on the CPU, BF16 where it has the instructions."""
        if device != "cpu":
            return ()
        able = _library().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return ("float32", "int8", *(("bfloat16",) if "BF16" in able else ()))

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
            compiled = core.compile_model(model, "CPU", _config(_arithmetic(model), threads))
        except RuntimeError as error:
            raise RuntimeFailed(f"OpenVINO cannot load the file: {_reason(error)}") from error
        return OpenVinoSession(compiled)

    def inspect(self, path: Path, device: str = "cpu") -> tuple[Session, Counter[str]]:
        """Load a file and count its kernels."""
        session = self.open(path, 1, device)
        return session, session.kernels()


class OpenVinoSession:
    """A compiled model with one request, which every call uses."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs; copies, since the request's own buffers are used again."""
        try:
            found = self._request.infer(dict(feeds), share_inputs=True)
        except RuntimeError as error:
            raise RuntimeFailed(f"OpenVINO cannot run the file: {_reason(error)}") from error
        return [np.asarray(array) for array in found.values()]

    def kernels(self) -> Counter[str]:
        """How often each kernel occurs in the graph that runs: ``Convolution.u8``, type and precision.

        The precision is that of the arithmetic, with INT8 named after its activations, ``i8`` or ``u8``.
        """
        described = (node.get_rt_info() for node in self._compiled.get_runtime_model().get_ordered_ops())
        return Counter(f"{info['layerType'].value}.{info['runtimePrecision'].value}" for info in described)


def _library() -> Any:
    return importlib.import_module("openvino")


def _arithmetic(model: Any) -> str:
    place = ["framework", ARITHMETIC]
    asked = str(model.get_rt_info(place).value) if model.has_rt_info(place) else "float32"
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
    """Without the lines that name a place in OpenVINO's source."""
    lines = [line for line in str(error).splitlines() if line.strip() and "Exception from" not in line]
    return one_line(RuntimeError("\n".join(lines)))
