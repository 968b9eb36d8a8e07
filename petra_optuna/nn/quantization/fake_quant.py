"""Simulated INT8 for quantisation-aware training: inserted, trained through, removed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from petra_optuna.nn.copying import private_copy
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.outputs import own_model
from petra_optuna.nn.quantization.fake_quant_mode import FakeQuantMode
from petra_optuna.nn.quantization.observers import WEIGHT_LIMIT, QuantState


class FakeQuantization:
    """Simulation of INT8 in one model: its forward pass rounds as its file will, until ``remove``.

    It intercepts torch functions and not modules, so functional calls, shared layers, tied weights and
    modules that read the weight of a child are covered, and so is what lies inside of torch's attention
    functions. Calls of a part of the model from outside are not simulated.
    Batch norms are not folded: rounding per output channel gives the same before and after folding.

    Args:
        model: Model in evaluation mode, private to the caller.
        batches: Batches that set the first ranges of the activations, at least one.
        limit: Largest weight of a layer in INT8 arithmetic.

    Attributes:
        layers: Names of the modules whose weights are rounded.
    """

    def __init__(self, model: nn.Module, batches: Iterable[Inputs], limit: int = WEIGHT_LIMIT) -> None:
        self._model = model
        self._called = own_model(model)  # what a training step of the task calls
        self._state = QuantState(model, limit)
        self._forward = self._called.forward
        self._called.forward = self._simulated
        with torch.no_grad():
            for inputs in batches:
                forward(model, inputs)
        self._state.calibrating = False
        self.layers = tuple(name for name, _ in model.named_modules() if name in self._state.rounded_modules)

    def scales(self) -> tuple[float, ...]:
        """Scale of each rounded activation, in the order of the forward pass."""
        return self._state.scales()

    def remove(self) -> None:
        """Take the simulation out; the trained float weights stay."""
        del self._called.forward  # of the instance: the class keeps its method

    def plain_copy(self) -> nn.Module:
        """A copy of the model as ``remove`` would leave it."""
        self.remove()
        try:
            return private_copy(self._model)
        finally:
            self._called.forward = self._simulated

    def _simulated(self, *args: Any, **kwargs: Any) -> Any:
        self._state.training = self._model.training
        with FakeQuantMode(self._state) as mode:
            output = self._forward(*args, **kwargs)
        return tree_map_only(Tensor, mode.finish, output)
