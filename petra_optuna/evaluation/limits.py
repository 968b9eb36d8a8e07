"""Hard limits on what a deployed model may need."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from petra_optuna.errors import UserError

QUALITY_DROP = "quality_drop"
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class Limits:
    """Upper bounds; None means unbounded. A trial beyond one is infeasible, however good.

    Attributes:
        size_bytes: Largest file.
        latency_ms: Slowest single batch, on the scale of the study's baseline.
        quality_drop: Most that the task's metric may be worse than the original's on selection, in its unit.
        peak_memory_bytes, energy_j, parameters, macs: Most of these; see ``EFFICIENCY_METRICS``.

    Raises:
        UserError: On construction, when a bound is not positive; a drop may be 0.
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
                raise UserError(f"the limit on {name} must be positive, got {bound:g}")

    def items(self) -> tuple[tuple[str, float], ...]:
        """The bounds that are set, by name of the value."""
        pairs = dataclasses.asdict(self).items()
        return tuple((name, float(bound)) for name, bound in pairs if bound is not None)

    def excess(self, values: Mapping[str, float]) -> dict[str, float]:
        """For each bounded value that is known, how far it lies beyond its bound (<= 0 is feasible)."""
        far = {name: values[name] - bound for name, bound in self.items() if name in values}
        # 0.97 - 0.96 is a little more than 0.01 in floating point.
        return {name: 0.0 if abs(excess) < _ROUNDING else excess for name, excess in far.items()}


def quality_drop(quality: float, original: float, direction: str) -> float:
    """By how much the task's metric is worse than the original's; negative where it is better."""
    return original - quality if direction == "maximize" else quality - original
