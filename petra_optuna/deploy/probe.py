"""Opening a file for the first time, in a child process: a native runtime can die on a model.

ONNX Runtime 1.32 does, by a segmentation fault while it optimises an FP16 transformer encoder. In a child
process that fails one trial; in the worker it would end the worker.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from petra_optuna.errors import LoweringFailed
from petra_optuna.runtimes import DEFAULT, OnnxRuntime
from petra_optuna.scratch import scratch_folder

_INSPECTOR = (sys.executable, "-m", "petra_optuna.runtimes.inspect_file")
PROBE_S = 120.0
"""Seconds for starting the child process and loading a file."""


@dataclasses.dataclass(frozen=True)
class Probe:
    """What the child process found out about a file.

    Attributes:
        kernels: Number of kernels of the graph that the runtime runs, by name.
        finite: Whether all outputs were finite; True where nothing was run.
    """

    kernels: Counter[str]
    finite: bool


def probe(
    data: bytes,
    feeds: Mapping[str, np.ndarray] | None = None,
    command: Sequence[str] = _INSPECTOR,
    timeout_s: float = PROBE_S,
    runtime: str = DEFAULT,
    device: str = "cpu",
) -> Probe:
    """Load the file with all optimisations in a child process, and run it if ``feeds`` are given.

    Args:
        data: Bytes of the file.
        feeds: One array per input name.
        command: Command of the child process; another one only in tests.
        timeout_s: Seconds after which the child counts as hung.
        runtime: Name of the runtime that loads the file.
        device: Device that the file runs on.

    Raises:
        LoweringFailed: When the child crashes, hangs or reports an error; the text names the reason.
    """
    with scratch_folder("probe") as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(data)
        # Inputs go by number: names of tensors need not be names of files.
        for index, (key, array) in enumerate((feeds or {}).items()):
            np.save(folder / f"{index}.npy", array, allow_pickle=False)
            (folder / f"{index}.name").write_text(key, encoding="utf-8")
        try:
            done = subprocess.run(
                [*command, runtime, device, name],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LoweringFailed(f"{runtime} hangs on the file: no answer in {timeout_s:g} s") from error
        if done.returncode != 0:
            raise LoweringFailed(f"{runtime} fails on the file: {_reason(done)}")
        inspection = json.loads((folder / "inspection.json").read_text(encoding="utf-8"))
        return Probe(Counter(inspection["kernels"]), finite=inspection["finite"])


class OnnxRuntimeModel:
    """A file with one output, in a session of ONNX Runtime on the CPU.

    Args:
        model: Bytes of the file, its path or its parsed form.
        threads: Threads of the session; with 1 results do not depend on the machine's load.

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
        """Number of operators in the session's optimised graph, the one that runs, by type.

        Raises:
            LoweringFailed: When the runtime dies on the file.
        """
        return probe(self._data).kernels


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"crash by signal {-done.returncode}"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


def _read(model: bytes | Path | onnx.ModelProto) -> bytes:
    if isinstance(model, onnx.ModelProto):
        data: bytes = model.SerializeToString()
        return data
    return model.read_bytes() if isinstance(model, Path) else model
