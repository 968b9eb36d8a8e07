"""Inspection of a file: ``python -m petra_optuna.runtimes.inspect_file RUNTIME DEVICE FOLDER``.

Opens the folder's ``model.onnx`` in the runtime and runs it on ``0.npy, 1.npy, ...``, if there are any, whose
input names are in ``0.name, 1.name, ...``. Writes ``inspection.json`` beside it: the ``kernels`` of the graph
that runs, by name, and whether all outputs are ``finite``. Starts without torch where the runtime is another.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from petra_optuna.errors import RuntimeFailed
from petra_optuna.runtimes.registry import runtime


def main(name: str, device: str, folder: Path) -> None:
    """Inspect the file in ``folder``; where the runtime fails, the last line on stderr is the reason."""
    feeds = {
        path.with_suffix(".name").read_text(encoding="utf-8"): np.load(path) for path in folder.glob("*.npy")
    }
    try:
        session, kernels = runtime(name).inspect(folder / "model.onnx", device)
        outputs = session.run(feeds) if feeds else []
    except RuntimeFailed as error:
        sys.exit(str(error))
    finite = all(bool(np.isfinite(output).all()) for output in outputs)
    (folder / "inspection.json").write_text(
        json.dumps({"kernels": kernels, "finite": finite}), encoding="utf-8"
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
