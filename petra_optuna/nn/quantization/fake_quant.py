"""Simulated INT8 for quantisation-aware training: inserted, trained through, removed."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.quantization.fake_quant_mode import FakeQuantMode
from petra_optuna.nn.quantization.observers import WEIGHT_LIMIT, QuantState


class FakeQuantization:
    """The forward pass of one model rounds as its INT8 file will; ``remove`` leaves no trace.

    It follows torch functions and not modules, so functional calls, shared layers, tied weights and modules
    that read the weight of a child are covered. Calls of a part of the model from outside are not simulated,
    nor what torch runs as one function of its own, such as the input projection of ``MultiheadAttention``.
    Batch norms are not folded: rounding per output channel gives the same before and after folding.

    Args:
        model: Private to the caller, in evaluation mode.
        batches: Set the first ranges of the activations; at least one.
        limit: Largest weight of a layer in INT8 arithmetic.

    Attributes:
        layers: Names of the modules whose weights are rounded.
    """

    def __init__(self, model: nn.Module, batches: Iterable[Inputs], limit: int = WEIGHT_LIMIT) -> None:
        self._model = model
        self._grids = QuantState(model, limit)
        self._forward = model.forward
        model.forward = self._simulated
        with torch.no_grad():
            for inputs in batches:
                forward(model, inputs)
        self._grids.calibrating = False
        self.layers = tuple(name for name, _ in model.named_modules() if name in self._grids.used)

    def steps(self) -> tuple[float, ...]:
        """The step of each rounded activation, in the order of the forward pass."""
        return self._grids.steps()

    def remove(self) -> None:
        """Take the simulation out; the trained float weights stay."""
        del self._model.forward  # the instance's: the class keeps its own

    def plain_copy(self) -> nn.Module:
        """A copy of the model as ``remove`` would leave it."""
        self.remove()
        try:
            return copy.deepcopy(self._model)
        finally:
            self._model.forward = self._simulated

    def _simulated(self, *args: Any, **kwargs: Any) -> Any:
        self._grids.training = self._model.training
        with FakeQuantMode(self._grids) as rounding:
            output = self._forward(*args, **kwargs)
        return rounding.finish(output) if isinstance(output, Tensor) else output
