"""Models that no ONNX file of this project can hold, refused before minutes go into their export."""

from __future__ import annotations

from torch import nn

from petra_optuna.errors import LoweringFailed
from petra_optuna.nn.inputs import Inputs, take
from petra_optuna.nn.stored_values import fewest_stored_values

LARGEST_BYTES = 2**31 - 1
"""Longest message of protobuf, in which an ONNX file is written."""


def refuse_unwritable(model: nn.Module, inputs: Inputs) -> None:
    """Refuse a model that is too large for one file, or has a layer that ONNX does not know.

    Args:
        model: Model in evaluation mode.
        inputs: Example batch.

    Raises:
        LoweringFailed: When it is such a model; the text says why.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.LSTM) and module.proj_size:
            raise LoweringFailed(
                f"layer {name!r} is an LSTM with proj_size={module.proj_size}, which ONNX does not "
                "have; use one without, with a Linear behind it"
            )
    if _bytes(model) > LARGEST_BYTES:
        element = min(weight.element_size() for weight in model.parameters())
        stored = element * fewest_stored_values(model, take(inputs, 1))
        if stored > LARGEST_BYTES:
            raise LoweringFailed(
                f"the model stores {stored / 2**30:.2f} GiB of weights, and an ONNX file holds 2 GiB; "
                "bring a smaller model"
            )


def _bytes(model: nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())
