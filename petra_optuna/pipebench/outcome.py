"""Result of one evaluation of a benchmark."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from petra_optuna.evolution import is_feasible


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result of one evaluation.

    Attributes:
        values: Values in the order of the benchmark's objectives; None for a failed trial.
        constraints: Violations by name; 0 and less is feasible.
        seconds: Time that the evaluation would take.
        failure: Reason why there are no values; None where there are.
    """

    values: tuple[float, ...] | None
    constraints: Mapping[str, float]
    seconds: float
    failure: str | None = None

    @property
    def feasible(self) -> bool:
        """Whether there are values and no constraint is violated."""
        return self.values is not None and is_feasible(self.constraints)
