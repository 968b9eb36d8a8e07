"""The part of a context that conversions read, with one batch to calibrate on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from petra_optuna.nn.inputs import Inputs


class Samples:
    """A context of one calibration batch, of a task of classes.

    Args:
        inputs: Inputs of the batch, in the order of the model's arguments.
    """

    repair = False
    regression = False

    def __init__(self, *inputs: Tensor) -> None:
        self.inputs = inputs

    def calibration_batches(self, limit: int = 256, batch_size: int = 64) -> Iterator[tuple[Inputs, Tensor]]:
        """The batch, with targets that nobody reads."""
        yield self.inputs, torch.zeros(len(self.inputs[0]))
