"""In which type a node trains, and why not in a shorter one."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from petra_optuna.nn.randomness import seeded
from petra_optuna.nn.training import (
    OUTPUT_TOLERANCE,
    VALUE_TOLERANCE,
    disagreement,
    inputs_device,
    training_dtype,
)
from petra_optuna.operations.context import Context

COMPARED_SAMPLES = 64
"""Calibration samples on which bfloat16 is compared with float32."""
OWN_STEP = "the task has a training step of its own"


@dataclasses.dataclass(frozen=True)
class Precision:
    """The type of a node's forward passes in training; loss, gradients and weights are float32 in any case.

    Attributes:
        dtype: The type; None for float32.
        reason: Why it is float32 where bfloat16 was asked for or the device gains by it; None otherwise.
    """

    dtype: torch.dtype | None = None
    reason: str | None = None

    def report(self) -> dict[str, str]:
        """``precision``, and ``bfloat16_off`` with the reason where there is one."""
        name = "float32" if self.dtype is None else str(self.dtype).removeprefix("torch.")
        return {"precision": name, **({} if self.reason is None else {"bfloat16_off": self.reason})}


def precision_of(model: nn.Module, context: Context, only_float32: str | None = None) -> Precision:
    """The type in which a node trains a model.

    With ``auto`` it is bfloat16 where the device gains by it and one batch's outputs and gradients agree with
    those of float32.

    Args:
        model: Model before the training; it is not changed.
        context: What was asked for, and the data that the comparison reads.
        only_float32: Reason why the node can train in float32 alone; None where it is not so.
    """
    task, asked = context.task, context.train_precision
    gains = training_dtype(inputs_device(model))
    if asked == "float32" or (asked == "auto" and gains is None):
        return Precision()
    reason = only_float32 or (OWN_STEP if task.training_step is not None else None)
    if reason is not None:
        return Precision(reason=reason)
    if asked == "bfloat16" or gains is None:
        return Precision(torch.bfloat16)
    batch = next(context.calibration_batches(COMPARED_SAMPLES, COMPARED_SAMPLES))
    with seeded(context.seed):
        tolerance = VALUE_TOLERANCE if context.regression else OUTPUT_TOLERANCE
        reason = disagreement(model, batch, task.loss, gains, task.fixed_norms, tolerance)
    return Precision(gains) if reason is None else Precision(reason=reason)
