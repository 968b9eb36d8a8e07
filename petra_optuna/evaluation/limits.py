"""Hard limits on what a deployed model may need."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from petra_optuna.errors import UserError

QUALITY_DROP = "quality_drop"
"""Name of the limit on quality, and of the value that it bounds (see ``quality_drop``)."""
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class Limits:
    """Upper bounds; None means unbounded. A trial that violates one is infeasible, however good.

    Attributes:
        size_bytes: Largest file.
        latency_ms: Slowest single batch, on the scale of the study's baseline.
        quality_drop: Most that the task's metric may be worse than the baseline's on selection, in its unit.
        peak_memory_bytes: Most memory that loading and running the file may add.
        energy_j: Most energy of one sample.
        parameters: Most parameters of the model before the conversion.
        macs: Most multiply-accumulates for one sample.

    Raises:
        UserError: On construction, when a bound is not positive; ``quality_drop`` may be 0.

    Example:
        >>> Limits(size_bytes=1e6, quality_drop=0.01).items()
        (('size_bytes', 1000000.0), ('quality_drop', 0.01))
    """

    size_bytes: float | None = None
    latency_ms: float | None = None
    quality_drop: float | None = None
    peak_memory_bytes: float | None = None
    energy_j: float | None = None
    parameters: float | None = None
    macs: float | None = None

    def __post_init__(self) -> None:
        """Check the bounds."""
        for name, bound in self.items():
            if not math.isfinite(bound) or bound < 0 or (bound == 0 and name != QUALITY_DROP):
                rule = "at least 0" if name == QUALITY_DROP else "positive"
                raise UserError(f"`limits.{name}` must be {rule} and finite, got {bound:g}")

    def items(self) -> tuple[tuple[str, float], ...]:
        """The bounds that are set, by name of the value."""
        pairs = dataclasses.asdict(self).items()
        return tuple((name, float(bound)) for name, bound in pairs if bound is not None)

    def violations(self, values: Mapping[str, float]) -> dict[str, float]:
        """How far each bounded value that is known is over its bound; at most 0 is feasible."""
        differences = {name: values[name] - bound for name, bound in self.items() if name in values}
        # 0.97 - 0.96 is a little more than 0.01 in floating point.
        return {name: 0.0 if abs(value) < _ROUNDING else value for name, value in differences.items()}


def quality_drop(quality: float, baseline_quality: float, direction: str) -> float:
    """How much worse the task's metric is than the baseline's; negative where it is better."""
    return baseline_quality - quality if direction == "maximize" else quality - baseline_quality
