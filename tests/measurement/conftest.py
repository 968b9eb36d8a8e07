"""Files to measure, made without torch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from support.chain_file import FEATURES, chain


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """``slow``, its ``copy``, ``fast`` and a file that is none."""
    folder = tmp_path_factory.mktemp("measured")
    for name, model in {"slow": chain(1024, 3), "copy": chain(1024, 3), "fast": chain(256, 3)}.items():
        onnx.save(model, folder / f"{name}.onnx")
    (folder / "garbage.onnx").write_bytes(b"this is no model")
    return folder


@pytest.fixture(scope="session")
def feeds():
    return {"input": np.random.default_rng(1).standard_normal((3, FEATURES)).astype(np.float32)}


@pytest.fixture
def large(tmp_path):
    """A file with 280 MB of weights."""
    onnx.save(chain(6000, 3), tmp_path / "large.onnx")
    return tmp_path / "large.onnx"
