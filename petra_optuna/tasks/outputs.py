"""The outputs of a model on a split, collected batch by batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from petra_optuna.errors import MeasurementFailed
from petra_optuna.nn.inputs import Inputs


class Outputs:
    """Outputs of one model, in the order of the batches given; they are held once.

    Args:
        predict: Maps inputs of B samples to outputs (B, ...).
        samples: Samples of all batches together.
    """

    def __init__(self, predict: Callable[[Inputs], np.ndarray], samples: int) -> None:
        self._predict = predict
        self._samples = samples
        self._done = 0
        self._collected: np.ndarray | None = None

    def add(self, inputs: Inputs, count: int) -> None:
        """Run the model on a batch of ``count`` samples.

        Raises:
            MeasurementFailed: When it gives another number of outputs, or one is NaN.
        """
        output = self._predict(inputs)
        if len(output) != count:
            raise MeasurementFailed(f"the model gave {len(output)} outputs for {count} samples")
        if np.isnan(output).any():
            raise MeasurementFailed("the model's outputs are NaN")
        if self._collected is None:
            self._collected = np.empty((self._samples, *output.shape[1:]), dtype=output.dtype)
        self._collected[self._done : self._done + count] = output
        self._done += count

    def joined(self) -> np.ndarray:
        """All outputs (N, ...).

        Raises:
            MeasurementFailed: When there are none.
        """
        if self._collected is None:
            raise MeasurementFailed("the model was given no samples")
        return self._collected[: self._done]
