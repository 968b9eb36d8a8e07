"""From a model to the file that ships: export, compare, convert, check, write."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from petra_optuna.deploy.certificate import certificate
from petra_optuna.deploy.checks import (
    BFLOAT16,
    check_kernels,
    check_size,
    check_weights,
    stored_bytes,
)
from petra_optuna.deploy.convolutions import CONV1D
from petra_optuna.deploy.export import strip_metadata
from petra_optuna.deploy.float_graph import float_graph
from petra_optuna.deploy.parity import allowed_difference, refuse_difference
from petra_optuna.deploy.probe import PROBE_S, probe
from petra_optuna.deploy.templates import Templates
from petra_optuna.errors import LoweringFailed
from petra_optuna.files import write_atomically
from petra_optuna.nn.batching import samples_per_call
from petra_optuna.nn.inputs import ONLY_BATCH, DynamicAxes, Inputs, forward, split_up, take, to_feeds
from petra_optuna.pipeline import Operation
from petra_optuna.runtimes import ARITHMETIC, DEFAULT, Runtime, Session
from petra_optuna.runtimes import runtime as find_runtime
from petra_optuna.stopwatch import Stopwatch

FLOAT32 = "float32"
_STORED_BFLOAT16 = "bfloat16_storage"
_SLOWER = 20.0
"""How many times longer than the float graph a file may take in the probe."""


@dataclasses.dataclass(frozen=True)
class Artifact:
    """The file that ships: one ONNX file with everything that the runtime loads.

    Attributes:
        path: Path of the file.
        size_bytes: Length of the file.
        sha256: SHA-256 of its bytes.
        lowering: Facts of the lowering, JSON-ready: ``runtime`` and ``precision``; ``kernels`` counted in the
            graph that runs; ``convolutions``, the layout of one-dimensional ones, None where there are none;
            ``parity``, the file's ``certificate``; ``conversion``, the report of one, None without.
        seconds: Seconds that its making took, by phase: ``export``, ``conversion`` and ``certificate``.
        reused: Whether the graph of an earlier export served.
    """

    path: Path
    size_bytes: int
    sha256: str
    lowering: dict[str, Any]
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    reused: bool = False


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
    templates: Templates | None = None,
    dynamic: DynamicAxes = ONLY_BATCH,
    others: Sequence[Inputs] = (),
) -> Artifact:
    """Write ``model`` as one ONNX file that runs as it promises.

    The float file must compute what the model computes, in ONNX Runtime and in the runtime that it is for.
    The distance of a converted file from the model is not limited, since its quality is measured by running
    it; the certificate records the distance.

    Args:
        model: Model to write; it is not changed.
        inputs: Example batch.
        path: Path to write, ending in ``.onnx``; the file is written whole or not at all.
        conversion: Node of kind ``conversion``; None for FP32.
        context: Context that the conversion is given.
        samples: Real inputs for the certificate; ``inputs`` when None.
        convolutions: Layout of one-dimensional convolutions, where there are any (see ``convolutions``).
        runtime: Name of the runtime that the file is for: it counts the kernels and makes the certificate.
        device: Device that the file runs on.
        templates: Graphs of earlier exports, which spare that of a model of the same structure; a new one is
            added. None exports anew.
        dynamic: Axes besides the batch that are dynamic.
        others: Batches of other sizes along them, on which the float file is compared with the model too.

    Raises:
        LoweringFailed: When the export fails or differs, or the file breaks a promise.
        OperationFailed: When the conversion cannot do its work.
        UserError: When the runtime is not installed.
        ValueError: When ``path`` does not end in ``.onnx``.
    """
    if path.suffix != ".onnx":
        raise ValueError(f"the path of an ONNX file must end in .onnx, got {path.name!r}")
    target = find_runtime(runtime)
    watch = Stopwatch()
    model = copy.deepcopy(model).eval()
    templates = Templates() if templates is None else templates
    whole = float_graph(model, inputs, convolutions, templates, dynamic, others)
    proto, float_bytes = whole.proto, stored_bytes(whole.proto)
    watch.lap("export")
    report: dict[str, Any] = {}
    if conversion is not None:
        applied = conversion.apply(proto, context)
        proto, report = applied.model, {"op": conversion.name, **applied.report}
        strip_metadata(proto)
    precision = _precision(proto, report, target.precisions(device))
    watch.lap("conversion")
    data, kernels = _check_file(proto, inputs, report, precision, (target, device), whole.parity_s)
    check_size(proto, float_bytes, report)
    # After the probe: a file on which the runtime dies has made the child die.
    expected, actual = _outputs(model, target.open(data, 1, device), samples or inputs)
    parity = certificate(proto, kernels, target.weighted, expected, actual)
    if precision == FLOAT32:
        told = f"in {target.name} the FP32 file differs from the model"
        refuse_difference(expected, actual, allowed_difference(expected), told)
    write_atomically(path, data)
    lowering = {
        "runtime": target.name,
        "precision": precision,
        "convolutions": whole.layout,
        "kernels": kernels,
        "parity": parity,
        "conversion": report or None,
    }
    digest = hashlib.sha256(data).hexdigest()
    watch.lap("certificate")
    return Artifact(path, len(data), digest, lowering, watch.seconds, whole.reused)


def _precision(proto: onnx.ModelProto, report: Mapping[str, Any], able: Sequence[str]) -> str:
    """Precision that the file computes in. Weights stored in BF16 compute in BF16 where the runtime can."""
    precision = str(report.get("precision", FLOAT32))
    if precision == _STORED_BFLOAT16 and BFLOAT16 in able:
        proto.metadata_props.add(key=ARITHMETIC, value=BFLOAT16)
        return BFLOAT16
    return precision


def _check_file(
    proto: onnx.ModelProto,
    inputs: Inputs,
    report: dict[str, Any],
    precision: str,
    runs_on: tuple[Runtime, str],
    seconds: float,
) -> tuple[bytes, dict[str, int]]:
    """Check what the file stores and runs; return its bytes and the kernels that run, by name.

    The float graph took ``seconds`` for the same inputs and more; a file that takes far longer hangs.
    """
    target, device = runs_on
    check_weights(proto, report)
    data = proto.SerializeToString(deterministic=True)
    limit_s = PROBE_S + _SLOWER * seconds
    seen = probe(data, to_feeds(inputs), timeout_s=limit_s, runtime=target.name, device=device)
    if not seen.finite:
        raise LoweringFailed("the file gives outputs that are not finite")
    check_kernels(seen.kernels, target.weighted, precision, report)
    return data, dict(sorted(seen.kernels.items()))


def _outputs(model: nn.Module, session: Session, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of the model and of the file, in calls that do not fill the memory."""
    parts = split_up(inputs, samples_per_call(model, take(inputs, 1)))
    with torch.inference_mode():
        expected = [forward(model, part).numpy() for part in parts]
    actual = [session.run(to_feeds(part))[0] for part in parts]
    return np.concatenate(expected), np.concatenate(actual)
