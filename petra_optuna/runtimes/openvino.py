"""OpenVINO on the CPU, an extra: reads the same ONNX files; often the faster one at large batches."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from petra_optuna.errors import RuntimeFailed, UserError, one_line
from petra_optuna.runtimes.base import Runtime, Session


class OpenVino(Runtime):
    """Compiled models on the CPU, in FP32."""

    name: ClassVar[str] = "openvino"
    package: ClassVar[str] = "openvino"
    suffix: ClassVar[str] = ".onnx"
    extra: ClassVar[str | None] = "openvino"

    def precisions(self, device: str = "cpu") -> tuple[str, ...]:
        """FP32 on the CPU."""
        return ("float32",) if device == "cpu" else ()

    def open(self, path: Path, threads: int, device: str = "cpu") -> Session:
        """Load a file."""
        if device != "cpu":
            raise UserError(f"runtime {self.name!r} runs on the cpu, not on {device!r}")
        openvino: Any = importlib.import_module(self.package)
        config = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Else it computes in BF16 wherever the CPU can.
            "INFERENCE_PRECISION_HINT": "f32",
            # The process is pinned already where it matters.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            compiled = openvino.Core().compile_model(path, "CPU", config)
        except RuntimeError as error:
            raise RuntimeFailed(f"OpenVINO cannot load the file: {_reason(error)}") from error
        return _Session(compiled.create_infer_request())


class _Session:
    def __init__(self, request: Any) -> None:
        self._request = request

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        try:
            found = self._request.infer(dict(feeds), share_inputs=True)
        except RuntimeError as error:
            raise RuntimeFailed(f"OpenVINO cannot run the file: {_reason(error)}") from error
        return [np.asarray(array) for array in found.values()]


def _reason(error: RuntimeError) -> str:
    """Without the lines that name a place in OpenVINO's source."""
    lines = [line for line in str(error).splitlines() if line.strip() and "Exception from" not in line]
    return one_line(RuntimeError("\n".join(lines)))
