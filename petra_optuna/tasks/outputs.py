"""The outputs of a model on a split and their targets, collected batch by batch.

Where batches have axes of different sizes, shorter ones are filled up at their end: outputs with zeros,
targets with ``IGNORED``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from petra_optuna.errors import MeasurementFailed
from petra_optuna.nn.finite import tell_samples
from petra_optuna.nn.inputs import Inputs

IGNORED = -100
"""What fills up targets: the index that torch's losses ignore; NaN for floating-point numbers."""


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
        broken = np.isnan(output)
        if broken.any():
            raise MeasurementFailed(f"in a batch the model's outputs are NaN for {tell_samples(broken)}")
        if self._collected is None:
            self._collected = np.empty((self._samples, *output.shape[1:]), dtype=output.dtype)
        if output.shape[1:] != self._collected.shape[1:]:
            common = _common_shape((self._collected, output))
            self._collected, output = (_filled_up(part, common, 0) for part in (self._collected, output))
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


def joined_targets(batches: Sequence[np.ndarray]) -> np.ndarray:
    """The targets of all batches (N, ...).

    Raises:
        MeasurementFailed: When they differ in their number of dimensions.
    """
    common = _common_shape(batches)
    if all(batch.shape[1:] == common for batch in batches):
        return np.concatenate(batches)
    floating = np.issubdtype(batches[0].dtype, np.floating)
    fill = np.nan if floating else IGNORED
    dtype = batches[0].dtype if floating else np.int64
    return np.concatenate([_filled_up(batch.astype(dtype), common, fill) for batch in batches])


def _common_shape(arrays: Sequence[np.ndarray]) -> tuple[int, ...]:
    """The largest size of each axis behind the first."""
    shapes = {array.shape[1:] for array in arrays}
    if len({len(shape) for shape in shapes}) > 1:
        raise MeasurementFailed(f"batches give arrays of different dimensions: {sorted(shapes)}")
    return tuple(max(sizes) for sizes in zip(*shapes, strict=True))


def _filled_up(array: np.ndarray, shape: tuple[int, ...], fill: float) -> np.ndarray:
    missing = [(0, 0), *((0, size - own) for size, own in zip(shape, array.shape[1:], strict=True))]
    return np.pad(array, missing, constant_values=fill)
