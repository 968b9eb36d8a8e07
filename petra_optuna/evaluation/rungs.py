"""Rungs: moments in a pipeline's training at which it is judged against other pipelines.

The ladder is that of EDGETUNE, Algorithm 2: rung k is the budget of ``min(k e, E)`` epochs over the share
``min(k f, 1)`` of the data. Here a rung is a moment on the way of the unstopped trial, reached when as many
samples were trained on: schedule, order and randomness are those of the full budget. So a survivor goes on
from exactly where it stands, ends bit for bit where it would without rungs, and cache keys need not know
of them. One that is stopped ends its training there and is finished as it stands.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from petra_optuna.errors import TrialError, UserError
from petra_optuna.evaluation.budget import Budget


@dataclasses.dataclass(frozen=True)
class Rungs:
    """A ladder of budgets, and which share of the trials climbs on.

    Attributes:
        min_epochs: Epochs of the first rung.
        min_fraction: Its share of the full budget's data, in (0, 1].
        eta: At each rung the best 1/eta of the trials train on.
        levels: Judge only at so many rungs, the lowest; None for all. While the learning rate is high a
            model is often worse than at its start and at its end.

    The defaults are what kept most for least in recorded searches (``studies/RESULTS.md``).

    Raises:
        UserError: On construction, when a value is out of range.
    """

    min_epochs: int = 1
    min_fraction: float = 0.25
    eta: float = 5.0
    levels: int | None = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.min_epochs < 1:
            raise UserError(f"the first rung needs at least 1 epoch, got {self.min_epochs}")
        if not 0 < self.min_fraction <= 1:
            raise UserError(f"the first rung's share of the data must be in (0, 1], got {self.min_fraction}")
        if not (math.isfinite(self.eta) and self.eta > 1):
            raise UserError(f"eta must be greater than 1, got {self.eta}")
        if self.levels is not None and self.levels < 1:
            raise UserError(f"pipelines must be judged at 1 rung or more, got {self.levels}")

    def ladder(self, full: Budget) -> tuple[Budget, ...]:
        """The budgets of all rungs in order; the last one is the full budget."""
        budgets = []
        for rung in range(1, max(full.epochs, math.ceil(1 / self.min_fraction)) + 2):
            epochs = min(rung * self.min_epochs, full.epochs)
            share = min(rung * self.min_fraction, 1.0)
            budgets.append(Budget(epochs, share * full.data_fraction))
            if budgets[-1] == full:
                break
        return tuple(budgets)

    def moments(self, full: Budget, epochs: int) -> dict[int, float]:
        """When a pipeline that trains for ``epochs`` in all is judged.

        Returns:
            For each rung below its end, counted from 1, the epochs of the full data after which it is met.
        """
        judged = self.ladder(full)[:-1][: self.levels]
        found = {
            number: rung.epochs * rung.data_fraction / full.data_fraction
            for number, rung in enumerate(judged, start=1)
        }
        return {number: moment for number, moment in found.items() if moment < epochs}


@dataclasses.dataclass(frozen=True)
class RungResult:
    """What is known of a pipeline at a rung: the shape it will end with, and its training so far.

    What the conversion will do to the quality is not in it; what it does to the size is.

    Attributes:
        rung: Counted from 1.
        quality: The task's metric of the model, in PyTorch, on the selection split.
        size_bytes: Of the file, by counting.
        macs: Multiply-accumulates for one sample.
        rest_s: Seconds that the rest of its training would take, at the pace so far.
    """

    rung: int
    quality: float
    size_bytes: float
    macs: int
    rest_s: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RungResult:
        """Inverse of ``to_dict``."""
        return cls(**data)


Judge = Callable[[RungResult], str | None]
"""Stores a rung's result and gives the reason to stop there, or None to train on."""


@dataclasses.dataclass(frozen=True)
class Stopped:
    """Where a pipeline's training ended before its time.

    Attributes:
        rung: Counted from 1.
        epochs: Of the full data, trained until there.
        reason: The judge's.
    """

    rung: int
    epochs: float
    reason: str

    def judge(self, result: RungResult) -> str | None:
        """A ``Judge`` that stops at the same rung again."""
        return self.reason if result.rung == self.rung else None


class RungStop(TrialError):
    """Ends a node's training; ``model`` is what the node would return."""

    def __init__(self, stopped: Stopped, model: nn.Module) -> None:
        super().__init__(stopped.reason)
        self.stopped = stopped
        self.model = model
