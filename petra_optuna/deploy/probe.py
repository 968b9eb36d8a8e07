"""The first look at a file, in a process of its own: a native runtime can die on a model.

ONNX Runtime 1.32 does, by a segmentation fault while it optimises an FP16 transformer encoder. Seen
in a child it is the failure of one trial; seen in the worker it would be the end of the worker.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from petra_optuna.errors import LoweringFailed
from petra_optuna.runtimes import DEFAULT

_LOOK = (sys.executable, "-m", "petra_optuna.runtimes.look")
_TIMEOUT_S = 120.0


@dataclasses.dataclass(frozen=True)
class Probe:
    """What the child saw.

    Attributes:
        kernels: Kernels of the graph that the runtime runs, by name.
        finite: Whether all outputs were finite; True where nothing was run.
    """

    kernels: Counter[str]
    finite: bool


def probe(
    data: bytes,
    feeds: Mapping[str, np.ndarray] | None = None,
    look: Sequence[str] = _LOOK,
    timeout_s: float = _TIMEOUT_S,
    runtime: str = DEFAULT,
    device: str = "cpu",
) -> Probe:
    """Load the file with all optimisations in a child process, and run it where feeds are given.

    Args:
        data: The file.
        feeds: One array per input name.
        look: Command of the child; another one only in tests.
        timeout_s: When the child counts as hung.
        runtime: Name of the runtime that loads it.
        device: On which.

    Raises:
        LoweringFailed: When the child crashes, hangs or reports an error; the text names the reason.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(data)
        # Inputs go by number: names of tensors need not be names of files.
        for index, (key, array) in enumerate((feeds or {}).items()):
            np.save(folder / f"{index}.npy", array, allow_pickle=False)
            (folder / f"{index}.name").write_text(key)
        try:
            done = subprocess.run(
                [*look, runtime, device, name],
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
        seen = json.loads((folder / "seen.json").read_text())
        return Probe(Counter(seen["kernels"]), finite=seen["finite"])


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"crash by signal {-done.returncode}"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"
