"""Check that the file computes what the model computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import torch
from torch import nn

from petra_optuna.deploy.probe import OnnxRuntimeModel
from petra_optuna.errors import LoweringFailed
from petra_optuna.nn.finite import tell_samples
from petra_optuna.nn.inputs import Inputs, batch_size_of, forward, mapped, take, to_feeds

TOLERANCE = 1e-3
"""Share of an output's largest magnitude; FP32 kernels of two libraries differ by about 1e-6 of it."""
_ROUNDING = 1e-5
"""Share of the largest output of all that any output may be off: small ones are differences of large ones."""


def check_parity(
    model: nn.Module,
    proto: onnx.ModelProto | bytes,
    inputs: Inputs,
    tolerance: float = TOLERANCE,
    others: Sequence[Inputs] = (),
) -> float:
    """Compare the file with the model at the example's batch size, at one sample and at a larger batch.

    Each output, which the second dimension counts, is compared on its own scale: that which it has on the
    example.

    Args:
        model: Model in evaluation mode; it is not changed.
        proto: File, parsed or as bytes.
        inputs: Example batch.
        tolerance: Largest allowed difference of an output, relative to its largest magnitude.
        others: Batches of other sizes along the dynamic axes, each on its own scale.

    Returns:
        Largest absolute difference seen.

    Raises:
        LoweringFailed: When the file differs by more, refuses a batch size, or an output is not finite.
    """
    runtime = OnnxRuntimeModel(proto)
    allowed = allowed_difference(_outputs(model, inputs), tolerance)
    same_size = [(batch, allowed) for batch in (inputs, take(inputs, 1), _enlarged(inputs))]
    of_others = [(batch, allowed_difference(_outputs(model, batch), tolerance)) for batch in others]
    return max(_difference(model, runtime, *pair) for pair in (*same_size, *of_others))


def allowed_difference(expected: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """How far each output may be off.

    Args:
        expected: Outputs of the model, (N, C, ...), or (N,).
        tolerance: Share of an output's largest magnitude.

    Returns:
        One number for each output, in a shape that broadcasts to ``expected``.
    """
    others = tuple(axis for axis in range(expected.ndim) if axis != 1)
    scales = np.abs(expected).max(axis=others, keepdims=True, initial=0.0)
    allowed: np.ndarray = tolerance * scales + _ROUNDING * scales.max(initial=0.0)
    return allowed


def _outputs(model: nn.Module, inputs: Inputs) -> np.ndarray:
    with torch.inference_mode():
        outputs: np.ndarray = forward(model, inputs).numpy()
    return outputs


def _difference(model: nn.Module, runtime: OnnxRuntimeModel, inputs: Inputs, allowed: np.ndarray) -> float:
    expected = _outputs(model, inputs)
    actual = runtime.run(to_feeds(inputs))
    size = batch_size_of(inputs)
    if actual.shape != expected.shape or expected.shape[0] != size:
        raise LoweringFailed(
            f"at batch {size} the model gives shape {expected.shape} and its ONNX file {actual.shape}; "
            "the first dimension must be the batch"
        )
    refuse_difference(expected, actual, allowed, f"the ONNX file differs from the model at batch {size}")
    return float(np.abs(actual - expected).max(initial=0.0))


def refuse_difference(expected: np.ndarray, actual: np.ndarray, allowed: np.ndarray, told: str) -> None:
    """Check that no output is off by more than it may be.

    Args:
        expected: Outputs of the model.
        actual: Those of the file, of the same shape.
        allowed: Result of ``allowed_difference``.
        told: Beginning of the error's text.

    Raises:
        LoweringFailed: When one is, or is not finite.
    """
    for outputs, whose in ((expected, "the model's own"), (actual, "its")):
        broken = ~np.isfinite(outputs)
        if broken.any():
            raise LoweringFailed(f"{told}: {whose} outputs are not finite for {tell_samples(broken)}")
    differences = np.abs(actual - expected)
    if (differences > allowed).any():
        worst = np.unravel_index(np.argmax(differences - allowed), differences.shape)
        raise LoweringFailed(
            f"{told} by {differences[worst]:.3g}, where it gives {expected[worst]:.3g}; allowed is "
            f"{np.broadcast_to(allowed, differences.shape)[worst]:.3g}"
        )


def _enlarged(inputs: Inputs) -> Inputs:
    """The batch with its first sample once more: a size that the export has not seen."""
    return mapped(inputs, lambda tensor: torch.cat([tensor, tensor[:1]]))
