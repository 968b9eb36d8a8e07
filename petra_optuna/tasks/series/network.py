"""InceptionTime between the units of the data: scales of inputs and outputs are parts of the network."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict

import numpy as np
import numpy.typing as npt
from torch import nn

from petra_optuna.aliases import Array
from petra_optuna.errors import DataError
from petra_optuna.models import Forecast, InceptionTime
from petra_optuna.nn.normalize import Denormalize, Normalize


@dataclasses.dataclass(frozen=True)
class Scales:
    """Mean and standard deviation of each channel, and of the target where it is a value.

    Attributes:
        mean, std: Mean and standard deviation of each channel.
        target: Mean and standard deviation of the target; None for classes.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    target: tuple[float, float] | None = None

    @classmethod
    def of(cls, rows: Array, names: tuple[str, ...], targets: Array | None = None) -> Scales:
        """The scales of training data, and of nothing else.

        Args:
            rows: Channels at each step (N, C).
            names: Names of the channels, for the error.
            targets: Targets (M,); None for classes.

        Raises:
            DataError: When a channel or the target never varies.
        """
        std = rows.std(axis=0)
        constant = [name for name, spread in zip(names, std, strict=True) if not spread > 0]
        if constant:
            raise DataError(f"channel {constant[0]!r} is constant in the training part; leave it out")
        target = None if targets is None else (float(targets.mean()), float(targets.std()))
        if target is not None and not target[1] > 0:
            raise DataError(f"the target is {target[0]:g} in the whole training part; take another one")
        return cls(_floats(rows.mean(axis=0)), _floats(std), target)


def build_network(scales: Scales, outputs: int, filters: int = 32, depth: int = 6) -> nn.Module:
    """The untrained network: raw channels to values in the target's units, or to logits.

    Args:
        scales: Scales of the training data.
        outputs: Number of logits, or of values.
        filters: Number of channels of each branch of a module.
        depth: Number of modules.
    """
    layers = OrderedDict[str, nn.Module](
        normalize=Normalize(scales.mean, scales.std),
        model=InceptionTime(len(scales.mean), outputs, filters, depth),
    )
    if scales.target is not None:
        mean, std = scales.target
        layers["denormalize"] = Denormalize([mean], [std])
    return nn.Sequential(layers)


@dataclasses.dataclass(frozen=True)
class Past:
    """Where the past of the target is in a window.

    Attributes:
        channel: Index of its channel.
        length: Steps of a window.
        recent: Last steps of the window whose mean is persistence.
    """

    channel: int
    length: int
    recent: int

    def persistence(self, rows: Array, starts: npt.NDArray[np.int64]) -> Array:
        """What is forecast when nothing changes, of windows of rows (N, C) that begin at ``starts``: (M,)."""
        ends = starts + self.length
        return np.array([rows[end - self.recent : end, self.channel].mean() for end in ends])


def build_forecast(scales: Scales, past: Past, filters: int = 32, depth: int = 6) -> nn.Module:
    """The untrained network that forecasts a channel of its window (see ``models.forecast``).

    Args:
        scales: Scales of the training data; that of the target is of its difference from persistence.
        past: Where the past of the target is.
        filters: Number of channels of each branch of a module.
        depth: Number of modules.
    """
    assert scales.target is not None
    network = InceptionTime(len(scales.mean), 1, filters, depth)
    return Forecast(network, scales.mean, scales.std, scales.target, past.channel, past.length, past.recent)


def _floats(values: Array) -> tuple[float, ...]:
    return tuple(np.asarray(values, dtype=float).tolist())
