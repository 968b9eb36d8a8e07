"""Hard limits on what a deployed model may need."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from petra_optuna.errors import UserError


@dataclasses.dataclass(frozen=True)
class Limits:
    """Upper bounds; None means unbounded. A trial beyond one is infeasible, however good.

    Attributes:
        size_bytes: Largest file.
        latency_ms: Slowest single batch, on the scale of the study's yardstick.

    Raises:
        UserError: On construction, when a bound is not positive.
    """

    size_bytes: float | None = None
    latency_ms: float | None = None

    def __post_init__(self) -> None:
        """Check the bounds."""
        for name, bound in self.items():
            if bound <= 0:
                raise UserError(f"the limit on {name} must be positive, got {bound}")

    def items(self) -> tuple[tuple[str, float], ...]:
        """The bounds that are set, by name of the value."""
        pairs = (("size_bytes", self.size_bytes), ("latency_ms", self.latency_ms))
        return tuple((name, float(bound)) for name, bound in pairs if bound is not None)

    def excess(self, values: Mapping[str, float]) -> dict[str, float]:
        """For each bounded value that is known, how far it lies beyond its bound (<= 0 is feasible)."""
        return {name: values[name] - bound for name, bound in self.items() if name in values}
