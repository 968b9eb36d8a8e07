"""Budgets that grow from rung to rung in epochs, in data, or in both (EDGETUNE, Algorithm 2)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, get_args

from petra_optuna.errors import UserError
from petra_optuna.evaluation import Budget

BudgetKind = Literal["multi", "epoch", "data"]


@dataclasses.dataclass(frozen=True)
class TuningBudget:
    """What a trial may train until each of its rungs.

    Iteration ``i`` of Algorithm 2 may train ``min(i e, E)`` epochs over the share ``min(i f, 1)`` of the
    data. ``epoch`` lets the epochs grow alone, over all data, and ``data`` the data alone, for ``e`` epochs.
    The rungs are the last iteration and the r-th, r^2-th, ... part of it, by Hyperband's reduction factor.

    Attributes:
        kind: ``multi``, ``epoch`` or ``data``.
        min_epochs: Epochs ``e`` of the first iteration.
        max_epochs: Most epochs ``E``.
        min_fraction: Share ``f`` of the data of the first iteration, in (0, 1].
        reduction_factor: Hyperband's factor between rungs.

    Raises:
        UserError: On construction, when a value is out of range.

    Example:
        >>> TuningBudget("multi").at(3)
        Budget(epochs=6, data_fraction=0.3)
    """

    kind: BudgetKind = "multi"
    min_epochs: int = 2
    max_epochs: int = 10
    min_fraction: float = 0.1
    reduction_factor: int = 3

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.kind not in get_args(BudgetKind):
            raise UserError(f"a budget is {', '.join(get_args(BudgetKind))}; got {self.kind!r}")
        if not 1 <= self.min_epochs <= self.max_epochs:
            raise UserError(
                f"a budget needs 1 <= min_epochs <= max_epochs, got {self.min_epochs} and {self.max_epochs}"
            )
        if not 0 < self.min_fraction <= 1:
            raise UserError(f"`min_fraction` of a budget must be in (0, 1], got {self.min_fraction}")
        if self.reduction_factor < 2:
            raise UserError(f"`reduction_factor` must be at least 2, got {self.reduction_factor}")

    @property
    def last(self) -> int:
        """The iteration from which the budget does not grow any more."""
        by_epochs = math.ceil(self.max_epochs / self.min_epochs) if self.kind != "data" else 1
        by_data = math.ceil(round(1 / self.min_fraction, 9)) if self.kind != "epoch" else 1
        return max(by_epochs, by_data)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Iterations at which trials are compared, the last one included."""
        rungs = [self.last]
        while rungs[0] >= self.reduction_factor:
            rungs.insert(0, rungs[0] // self.reduction_factor)
        return tuple(rungs)

    def at(self, iteration: int) -> Budget:
        """Epochs and share of the data of an iteration."""
        epochs = min(iteration * self.min_epochs, self.max_epochs)
        fraction = min(round(iteration * self.min_fraction, 9), 1.0)
        if self.kind == "epoch":
            return Budget(epochs, 1.0)
        if self.kind == "data":
            return Budget(self.min_epochs, fraction)
        return Budget(epochs, fraction)

    def segment(self, before: int | None, iteration: int) -> Budget:
        """What a trial trains from one rung to the next, continuing from its own weights.

        Until an iteration it has seen its epochs times its share of the data. The rest is trained in whole
        epochs over the share of the new iteration, one at least.

        Args:
            before: Iteration of the rung before; None at the first one.
            iteration: Iteration of the next rung.
        """
        now = self.at(iteration)
        if before is None:
            return now
        then = self.at(before)
        seen = then.epochs * then.data_fraction / now.data_fraction
        return Budget(max(1, math.ceil(round(now.epochs - seen, 9))), now.data_fraction)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``TuningBudget(**fields)`` is its inverse."""
        return dataclasses.asdict(self)
