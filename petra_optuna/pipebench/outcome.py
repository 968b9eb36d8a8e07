"""What one evaluation of a benchmark gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from petra_optuna.evolution import is_feasible


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one evaluation gives.

    Attributes:
        values: In the order of the benchmark's objectives; None for a failed trial.
        constraints: By name; 0 and less is feasible.
        seconds: What the evaluation would take.
        failure: Why there are no values.
    """

    values: tuple[float, ...] | None
    constraints: Mapping[str, float]
    seconds: float
    failure: str | None = None

    @property
    def feasible(self) -> bool:
        """Whether there are values and no constraint is violated."""
        return self.values is not None and is_feasible(self.constraints)
