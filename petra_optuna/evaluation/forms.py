"""Which form of its one-dimensional convolutions a file ships with: both are made, both are measured.

The forms compute the same, so speed alone decides. Latency and throughput count alike, as ratios to the
yardstick: the form with the smaller geometric mean of the two times ships. Within 3 %, where a reader calls
it a tie, the form as exported stays. One that cannot be made or measured does not ship, and the record says
why.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from petra_optuna.deploy import IMAGES, SERIES
from petra_optuna.errors import TrialError
from petra_optuna.evaluation.repair import Lowered
from petra_optuna.measurement import Measured

_TIE = 0.03


@dataclasses.dataclass(frozen=True)
class Forms:
    """Both forms of one file.

    Attributes:
        shipped: The one that ships.
        measurements: Of each form that was measured, by name of the form.
        failure: Why the form that was not exported is missing; None where it is not.
    """

    shipped: str
    measurements: Mapping[str, Measured]
    failure: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        measured = {form: found.to_dict() for form, found in self.measurements.items()}
        return {"shipped": self.shipped, "measurements": measured, "failure": self.failure}


def faster_form(
    first: Lowered, again: Callable[[str], Lowered], measure: Callable[[Path], Measured]
) -> tuple[Lowered, Measured, Forms | None]:
    """The file that ships and its measurements; no ``Forms`` where it has no one-dimensional convolution.

    Args:
        first: The file as exported.
        again: Makes it in another form, at another path.
        measure: Measures a file against the yardstick.

    Raises:
        TrialError: When the file as exported cannot be measured.
    """
    series = measure(first.artifact.path)
    if first.artifact.lowering["convolutions"] is None:
        return first, series, None
    second = None
    try:
        second = again(IMAGES)
        images = measure(second.artifact.path)
    except TrialError as error:
        if second is not None:
            second.artifact.path.unlink()
        return first, series, Forms(SERIES, {SERIES: series}, f"{type(error).__name__}: {error}")
    both = {SERIES: series, IMAGES: images}
    if _time(images) < (1 - _TIE) * _time(series):
        first.artifact.path.unlink()
        return second, images, Forms(IMAGES, both)
    second.artifact.path.unlink()
    return first, series, Forms(SERIES, both)


def _time(measured: Measured) -> float:
    """Geometric mean of the time ratios of latency and throughput, the batch sizes of the latter alike."""
    throughput = statistics.geometric_mean(item.ratio for item in measured.throughput)
    return math.sqrt(measured.latency.ratio * throughput)
