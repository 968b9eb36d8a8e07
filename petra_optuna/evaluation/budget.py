"""What a pipeline may spend on training: epochs and a share of the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from petra_optuna.errors import UserError
from petra_optuna.pipeline import Operation, allot


@dataclasses.dataclass(frozen=True)
class Budget:
    """The most that one pipeline may train.

    Attributes:
        epochs: Epochs over all its training nodes together; nodes are served in order.
        data_fraction: Share of the training split that an epoch visits, in (0, 1].

    Raises:
        UserError: On construction, when a value is out of range.
    """

    epochs: int = 6
    data_fraction: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.epochs < 1:
            raise UserError(f"the budget needs at least 1 epoch, got {self.epochs}")
        if not 0 < self.data_fraction <= 1:
            raise UserError(f"the budget's share of the data must be in (0, 1], got {self.data_fraction}")

    def allot(self, nodes: Iterable[Operation]) -> tuple[int, ...]:
        """Epochs for each node in order: what a training node asks for while the budget lasts, else 0."""
        return allot(nodes, self.epochs)
