"""The first look at a file: ``python -m petra_optuna.runtimes.look RUNTIME DEVICE FOLDER``.

Opens the folder's ``model.onnx`` in the runtime, runs it on ``0.npy, 1.npy, ...`` (names of the inputs in
``0.name, ...``) where there are any, and writes ``seen.json`` beside it: ``kernels`` of the graph that runs,
and whether all outputs are ``finite``. Starts without torch where the runtime is another.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from petra_optuna.errors import RuntimeFailed
from petra_optuna.runtimes.registry import runtime


def main(name: str, device: str, folder: Path) -> None:
    """Look at the file in ``folder``; what the runtime says against it is the last line on stderr."""
    feeds = {path.with_suffix(".name").read_text(): np.load(path) for path in folder.glob("*.npy")}
    try:
        session, kernels = runtime(name).inspect(folder / "model.onnx", device)
        outputs = session.run(feeds) if feeds else []
    except RuntimeFailed as error:
        sys.exit(str(error))
    finite = all(bool(np.isfinite(output).all()) for output in outputs)
    (folder / "seen.json").write_text(json.dumps({"kernels": kernels, "finite": finite}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
