"""Model to file: export, compare, convert, check, write."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from petra_optuna.deploy.artifact import Artifact
from petra_optuna.deploy.certificate import certificate
from petra_optuna.deploy.checks import (
    check_batch_norms,
    check_kernels,
    check_size,
    check_weights,
    stored_bytes,
)
from petra_optuna.deploy.convolutions import IMAGES, SERIES, as_images, has_series
from petra_optuna.deploy.export import export_onnx
from petra_optuna.deploy.metadata import strip_metadata
from petra_optuna.deploy.onnxruntime import OnnxRuntimeModel
from petra_optuna.deploy.parity import check_parity
from petra_optuna.deploy.probe import probe
from petra_optuna.errors import LoweringFailed
from petra_optuna.files import write_atomically
from petra_optuna.nn.inputs import Inputs, forward, to_feeds
from petra_optuna.pipeline import Operation

FLOAT32 = "float32"


def lower(
    model: nn.Module,
    inputs: Inputs,
    path: Path,
    conversion: Operation | None = None,
    context: Any = None,
    *,
    samples: Inputs | None = None,
    convolutions: str = SERIES,
) -> Artifact:
    """Write ``model`` as one ONNX file that runs as it promises.

    The float file must compute what the model computes. How far a converted file may be from it is not
    checked, since its quality is measured by running it; the certificate says how far it is.

    Args:
        model: Not changed.
        inputs: Example batch.
        path: Where to write, ending in ``.onnx``; written whole or not at all.
        conversion: A node of kind ``conversion``; None for FP32.
        context: Handed to the conversion.
        samples: Real inputs for the certificate; ``inputs`` when None.
        convolutions: Form of the one-dimensional ones, where there are any (see ``convolutions``).

    Raises:
        LoweringFailed: When the export fails or differs, or the file breaks a promise.
        OperationFailed: When the conversion cannot do its work.
        ValueError: When ``path`` does not end in ``.onnx``.
    """
    if path.suffix != ".onnx":
        raise ValueError(f"the path of an ONNX file must end in .onnx, got {path.name!r}")
    model = copy.deepcopy(model).eval()
    proto = export_onnx(model, inputs)
    form = convolutions if has_series(proto) else None
    if form == IMAGES:
        proto = as_images(proto)
    check_batch_norms(proto)
    check_parity(model, proto, inputs)
    report: dict[str, Any] = {}
    float_bytes = stored_bytes(proto)
    if conversion is not None:
        applied = conversion.apply(proto, context)
        proto, report = applied.model, {"op": conversion.name, **applied.report}
        strip_metadata(proto)
    data, kernels = _checked(proto, inputs, report)
    check_size(proto, float_bytes, report)
    real = inputs if samples is None else samples
    with torch.inference_mode():
        expected = forward(model, real).numpy()
    # After the probe: a file on which the runtime dies has died in a child.
    parity = certificate(proto, kernels, expected, OnnxRuntimeModel(data).run(to_feeds(real)))
    write_atomically(path, data)
    lowering = {
        "precision": report.get("precision", FLOAT32),
        "convolutions": form,
        "kernels": kernels,
        "parity": parity,
        "conversion": report or None,
    }
    return Artifact.describe(path, data, lowering)


def _checked(proto: onnx.ModelProto, inputs: Inputs, report: dict[str, Any]) -> tuple[bytes, dict[str, int]]:
    check_weights(proto, report)
    data = proto.SerializeToString(deterministic=True)
    seen = probe(data, to_feeds(inputs))
    if not seen.finite:
        raise LoweringFailed("the file gives outputs that are not finite")
    check_kernels(seen.kernels, report.get("precision", FLOAT32), report)
    return data, dict(sorted(seen.kernels.items()))
