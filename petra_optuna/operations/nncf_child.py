"""The child of ``quantize_nncf``: ``python nncf_child.py FOLDER PRESET``.

Reads ``model.onnx``, the calibration batches ``0.safetensors, ...`` and the names of nodes to leave in float,
``ignored.json``; writes ``quantized.onnx`` beside them. A process of its own, since NNCF prints, draws bars,
seeds generators and reports its use unless the environment forbids it.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import onnx
from safetensors.numpy import load_file


def main(folder: Path, preset: str) -> None:
    """Quantise; whatever goes wrong ends the process with a traceback."""
    nncf: Any = importlib.import_module("nncf")
    paths = sorted(folder.glob("*.safetensors"), key=lambda path: int(path.stem))
    batches = [load_file(path) for path in paths]
    ignored = json.loads((folder / "ignored.json").read_text(encoding="utf-8"))
    quantized = nncf.quantize(
        onnx.load(folder / "model.onnx"),
        nncf.Dataset(batches),
        preset=nncf.QuantizationPreset(preset),
        subset_size=len(batches),
        ignored_scope=nncf.IgnoredScope(names=ignored),
    )
    onnx.save(quantized, folder / "quantized.onnx")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
