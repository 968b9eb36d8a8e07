"""The child of ``probe``: a script of its own, so that it starts without torch.

``python probe_child.py FOLDER`` loads ``model.onnx``, writes ``optimised.onnx`` beside it, runs the file on
``0.npy, 1.npy, ...`` (names of the inputs in ``0.name, ...``) and prints ``finite`` or ``not finite``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort


def main(folder: Path) -> None:
    """Look at the file in ``folder``; whatever goes wrong ends the process with a traceback."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3  # a warning says that the optimised file fits this machine only
    session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    feeds = {path.with_suffix(".name").read_text(): np.load(path) for path in folder.glob("*.npy")}
    outputs = session.run(None, feeds) if feeds else []
    print("finite" if all(np.isfinite(output).all() for output in outputs) else "not finite")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
