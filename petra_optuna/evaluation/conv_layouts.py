"""Which form of its one-dimensional convolutions a file ships with: both are made, both are measured.

The forms compute the same, so speed alone decides. Latency and throughput count alike, by ratio: the form
with the smaller geometric mean of both times ships. Within 3 %, where a reader calls it a tie, the form as
exported stays. One that cannot be made or measured does not ship, and the record says why.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from petra_optuna.deploy import CONV1D, CONV2D
from petra_optuna.errors import TrialError
from petra_optuna.evaluation.repair import LoweredModel
from petra_optuna.measurement import FileMeasurement

_SPEED = ("latency_ms", "throughput_per_s")
_TIE = 0.03


@dataclasses.dataclass(frozen=True)
class ConvLayouts:
    """Both forms of one file.

    Attributes:
        shipped: The one that ships.
        values: ``latency_ms`` and ``throughput_per_s`` by form.
        failure: Why the form that was not exported is missing; None where it is not.
    """

    shipped: str
    values: Mapping[str, Mapping[str, float]]
    failure: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dataclasses.asdict(self)


def faster_layout(
    first: LoweredModel,
    again: Callable[[str], LoweredModel],
    measure: Callable[[Path], FileMeasurement],
    values_of: Callable[[FileMeasurement], Mapping[str, float]],
) -> tuple[LoweredModel, FileMeasurement, ConvLayouts | None]:
    """The file that ships and its measurement; no ``ConvLayouts`` without one-dimensional convolutions.

    The other file is removed.

    Args:
        first: The file as exported.
        again: Makes it in another form, at another path.
        measure: Measures a file against the baseline.
        values_of: A measurement's values by name, those of ``ConvLayouts`` among them.

    Raises:
        TrialError: When the file as exported cannot be measured.
    """
    series = measure(first.artifact.path)
    if first.artifact.lowering["convolutions"] is None:
        return first, series, None
    values = {CONV1D: _speed(values_of(series))}
    second = None
    try:
        second = again(CONV2D)
        images = measure(second.artifact.path)
    except TrialError as error:
        if second is not None:
            second.artifact.path.unlink()
        return first, series, ConvLayouts(CONV1D, values, f"{type(error).__name__}: {error}")
    values[CONV2D] = _speed(values_of(images))
    if _time(values[CONV2D]) < (1 - _TIE) * _time(values[CONV1D]):
        first.artifact.path.unlink()
        return second, images, ConvLayouts(CONV2D, values)
    second.artifact.path.unlink()
    return first, series, ConvLayouts(CONV1D, values)


def _speed(values: Mapping[str, float]) -> dict[str, float]:
    return {name: values[name] for name in _SPEED}


def _time(values: Mapping[str, float]) -> float:
    """Geometric mean of latency and time a sample, up to a factor that is the same for both forms."""
    return math.sqrt(values["latency_ms"] / values["throughput_per_s"])
