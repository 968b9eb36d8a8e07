"""Running a file in ONNX Runtime on the CPU, and seeing what it really runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from petra_optuna.deploy.probe import probe
from petra_optuna.runtimes import OnnxRuntime


class OnnxRuntimeModel:
    """A file with one output, in a session on the CPU.

    Args:
        model: The file, its path or its parsed form.
        threads: Of the session; 1 for results that do not depend on the machine's load.

    Raises:
        RuntimeFailed: When ONNX Runtime cannot load the file.
    """

    def __init__(self, model: bytes | Path | onnx.ModelProto, threads: int = 1) -> None:
        self._data = _read(model)
        self._session = OnnxRuntime().open(self._data, threads)

    def run(self, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        """The file's first output.

        Args:
            feeds: One array per input name, batch first.

        Raises:
            RuntimeFailed: When the file does not run on these inputs.
        """
        return self._session.run(feeds)[0]

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
