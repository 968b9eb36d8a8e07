"""Check that the file computes what the model computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import torch
from torch import nn

from petra_optuna.deploy.probe import OnnxRuntimeModel
from petra_optuna.errors import LoweringFailed
from petra_optuna.nn.inputs import Inputs, batch_size_of, forward, mapped, take, to_feeds

TOLERANCE = 1e-3
"""Share of the largest absolute output; FP32 kernels of two libraries differ by about 1e-6 of it."""


def check_parity(
    model: nn.Module,
    proto: onnx.ModelProto | bytes,
    inputs: Inputs,
    tolerance: float = TOLERANCE,
    others: Sequence[Inputs] = (),
) -> float:
    """Compare the file with the model at the example's batch size, at one sample and at a larger batch.

    Args:
        model: Model in evaluation mode; it is not changed.
        proto: File, parsed or as bytes.
        inputs: Example batch.
        tolerance: Largest allowed difference, relative to the largest absolute output of the model.
        others: Batches of other sizes along the dynamic axes.

    Returns:
        Largest absolute difference seen.

    Raises:
        LoweringFailed: When the file differs by more, refuses a batch size, or an output is not finite.
    """
    runtime = OnnxRuntimeModel(proto)
    return max(
        _difference(model, runtime, batch, tolerance)
        for batch in (inputs, take(inputs, 1), _enlarged(inputs), *others)
    )


def _difference(model: nn.Module, runtime: OnnxRuntimeModel, inputs: Inputs, tolerance: float) -> float:
    with torch.inference_mode():
        expected = forward(model, inputs).numpy()
    actual = runtime.run(to_feeds(inputs))
    size = batch_size_of(inputs)
    if actual.shape != expected.shape or expected.shape[0] != size:
        raise LoweringFailed(
            f"at batch {size} the model gives shape {expected.shape} and its ONNX file {actual.shape}; "
            "the first dimension must be the batch"
        )
    difference = float(np.abs(actual - expected).max(initial=0.0))
    scale = float(np.abs(expected).max(initial=0.0))
    # Written so that NaN fails.
    if not difference <= tolerance * scale:
        raise LoweringFailed(
            f"the ONNX file differs from the model by {difference:.3g} at batch {size}, "
            f"allowed is {tolerance:g} of the largest output {scale:.3g}"
        )
    return difference


def _enlarged(inputs: Inputs) -> Inputs:
    """The batch with its first sample once more: a size that the export has not seen."""
    return mapped(inputs, lambda tensor: torch.cat([tensor, tensor[:1]]))
