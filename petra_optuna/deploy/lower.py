"""Model to file: export, compare, convert, check, write."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from petra_optuna.deploy.artifact import Artifact
from petra_optuna.deploy.certificate import certificate
from petra_optuna.deploy.checks import (
    BFLOAT16,
    check_batch_norms,
    check_kernels,
    check_size,
    check_weights,
    stored_bytes,
)
from petra_optuna.deploy.convolutions import CONV1D, CONV2D, as_images, has_series
from petra_optuna.deploy.export import export_onnx
from petra_optuna.deploy.metadata import strip_metadata
from petra_optuna.deploy.parity import TOLERANCE, check_parity
from petra_optuna.deploy.probe import probe
from petra_optuna.errors import LoweringFailed
from petra_optuna.files import write_atomically
from petra_optuna.nn.inputs import Inputs, forward, to_feeds
from petra_optuna.pipeline import Operation
from petra_optuna.runtimes import ARITHMETIC, DEFAULT, Runtime
from petra_optuna.runtimes import runtime as find_runtime

FLOAT32 = "float32"
_STORED_BFLOAT16 = "bfloat16_storage"


def lower(
    model: nn.Module,
    inputs: Inputs,
    path: Path,
    conversion: Operation | None = None,
    context: Any = None,
    *,
    samples: Inputs | None = None,
    convolutions: str = CONV1D,
    runtime: str = DEFAULT,
    device: str = "cpu",
) -> Artifact:
    """Write ``model`` as one ONNX file that runs as it promises.

    The float file must compute what the model computes, in ONNX Runtime and in the runtime that it is for.
    How far a converted file may be from it is not checked, since its quality is measured by running it; the
    certificate says how far it is.

    Args:
        model: Not changed.
        inputs: Example batch.
        path: Where to write, ending in ``.onnx``; written whole or not at all.
        conversion: A node of kind ``conversion``; None for FP32.
        context: Handed to the conversion.
        samples: Real inputs for the certificate; ``inputs`` when None.
        convolutions: Form of the one-dimensional ones, where there are any (see ``convolutions``).
        runtime: Name of the runtime that the file is for: it counts the kernels and makes the certificate.
        device: On which it runs.

    Raises:
        LoweringFailed: When the export fails or differs, or the file breaks a promise.
        OperationFailed: When the conversion cannot do its work.
        UserError: When the runtime is not installed.
        ValueError: When ``path`` does not end in ``.onnx``.
    """
    if path.suffix != ".onnx":
        raise ValueError(f"the path of an ONNX file must end in .onnx, got {path.name!r}")
    target = find_runtime(runtime)
    model = copy.deepcopy(model).eval()
    proto = export_onnx(model, inputs)
    form = convolutions if has_series(proto) else None
    if form == CONV2D:
        proto = as_images(proto)
    check_batch_norms(proto)
    check_parity(model, proto, inputs)
    report: dict[str, Any] = {}
    float_bytes = stored_bytes(proto)
    if conversion is not None:
        applied = conversion.apply(proto, context)
        proto, report = applied.model, {"op": conversion.name, **applied.report}
        strip_metadata(proto)
    precision = _precision(proto, report, target.precisions(device))
    data, kernels = _checked(proto, inputs, report, precision, (target, device))
    check_size(proto, float_bytes, report)
    real = inputs if samples is None else samples
    with torch.inference_mode():
        expected = forward(model, real).numpy()
    # After the probe: a file on which the runtime dies has died in a child.
    actual = target.open(data, 1, device).run(to_feeds(real))[0]
    parity = certificate(proto, kernels, target.weighted, expected, actual)
    if precision == FLOAT32:
        _check_float(parity, expected, target)
    write_atomically(path, data)
    lowering = {
        "runtime": target.name,
        "precision": precision,
        "convolutions": form,
        "kernels": kernels,
        "parity": parity,
        "conversion": report or None,
    }
    return Artifact.describe(path, data, lowering)


def _precision(proto: onnx.ModelProto, report: Mapping[str, Any], able: Sequence[str]) -> str:
    """What the file computes in. Weights stored in BF16 are computed in BF16 where the runtime can."""
    precision = str(report.get("precision", FLOAT32))
    if precision == _STORED_BFLOAT16 and BFLOAT16 in able:
        proto.metadata_props.add(key=ARITHMETIC, value=BFLOAT16)
        return BFLOAT16
    return precision


def _checked(
    proto: onnx.ModelProto, inputs: Inputs, report: dict[str, Any], precision: str, place: tuple[Runtime, str]
) -> tuple[bytes, dict[str, int]]:
    target, device = place
    check_weights(proto, report)
    data = proto.SerializeToString(deterministic=True)
    seen = probe(data, to_feeds(inputs), runtime=target.name, device=device)
    if not seen.finite:
        raise LoweringFailed("the file gives outputs that are not finite")
    check_kernels(seen.kernels, target.weighted, precision, report)
    return data, dict(sorted(seen.kernels.items()))


def _check_float(parity: Mapping[str, Any], expected: np.ndarray, target: Runtime) -> None:
    """An FP32 file computes in FP32 in its own runtime too."""
    difference, scale = parity["max_abs_difference"], float(np.abs(expected).max(initial=0.0))
    if difference > TOLERANCE * scale:
        raise LoweringFailed(
            f"in {target.name} the FP32 file differs from the model by {difference:.3g}, "
            f"allowed is {TOLERANCE:g} of the largest output {scale:.3g}"
        )
