"""The outputs of a model on a split, collected batch by batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from petra_optuna.errors import MeasurementFailed
from petra_optuna.nn.inputs import Inputs


class Outputs:
    """Outputs of one model, in the order of the batches given.

    Args:
        predict: Maps inputs of B samples to outputs (B, ...).
    """

    def __init__(self, predict: Callable[[Inputs], np.ndarray]) -> None:
        self._predict = predict
        self._collected: list[np.ndarray] = []

    def add(self, inputs: Inputs, count: int) -> None:
        """Run the model on a batch of ``count`` samples.

        Raises:
            MeasurementFailed: When it gives another number of outputs.
        """
        output = self._predict(inputs)
        if len(output) != count:
            raise MeasurementFailed(f"the model gave {len(output)} outputs for {count} samples")
        self._collected.append(output)

    def joined(self) -> np.ndarray:
        """All outputs (N, ...).

        Raises:
            MeasurementFailed: When one is NaN.
        """
        joined = np.concatenate(self._collected)
        if np.isnan(joined).any():
            raise MeasurementFailed("the model's outputs are NaN")
        return joined
