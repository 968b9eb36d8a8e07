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
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from petra_optuna.errors import OperationFailed, TrialError, UserError, foreign_errors_as
from petra_optuna.evaluation.budget import Budget, TrainingLedger
from petra_optuna.evaluation.preview import apply_structure, fewest_bytes
from petra_optuna.evaluation.quality import quality_in_torch
from petra_optuna.nn.counting import count_macs
from petra_optuna.nn.inputs import take
from petra_optuna.nn.randomness import seeded
from petra_optuna.pipeline import Pipeline
from petra_optuna.tasks import Task


@dataclasses.dataclass(frozen=True)
class Rungs:
    """A ladder of budgets, and which share of the trials climbs on.

    Attributes:
        min_epochs: Epochs of the first rung.
        min_fraction: Share of the full budget's data at the first rung, in (0, 1].
        eta: Inverse of the share of trials that train on: the best 1/eta of those at a rung.
        levels: Number of rungs at which pipelines are judged, the lowest ones; None for all. While the
            learning rate is high a model is often worse than at its start and at its end.

    The defaults are what kept most for least in recorded searches (``studies/RESULTS.md``).

    Raises:
        UserError: On construction, when a value is out of range.

    Example:
        >>> Rungs(min_epochs=1, min_fraction=0.25, eta=4).eta
        4
    """

    min_epochs: int = 1
    min_fraction: float = 0.25
    eta: float = 5.0
    levels: int | None = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.min_epochs < 1:
            raise UserError(f"`rungs.min_epochs` must be at least 1, got {self.min_epochs}")
        if not 0 < self.min_fraction <= 1:
            raise UserError(f"`rungs.min_fraction` must be in (0, 1], got {self.min_fraction}")
        if not (math.isfinite(self.eta) and self.eta > 1):
            raise UserError(f"`rungs.eta` must be greater than 1, got {self.eta}")
        if self.levels is not None and self.levels < 1:
            raise UserError(f"`rungs.levels` must be at least 1, got {self.levels}")

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
            The moment of each rung before the end of the training, in epochs of the full data, by number of
            the rung, counted from 1.
        """
        budgets = self.ladder(full)[:-1][: self.levels]
        moments = [budget.epochs * budget.data_fraction / full.data_fraction for budget in budgets]
        return {rung: moment for rung, moment in enumerate(moments, start=1) if moment < epochs}


@dataclasses.dataclass(frozen=True)
class RungResult:
    """What is known of a pipeline at a rung: the shape it will end with, and its training so far.

    What the conversion will do to the quality is not in it; what it does to the size is.

    Attributes:
        rung: Number of the rung, counted from 1.
        quality: The task's metric of the model, in PyTorch, on the selection split.
        size_bytes: Fewest bytes of the file, by counting the weights that it stores.
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


RungJudge = Callable[[RungResult], str | None]
"""Stores a rung's result and gives the reason to stop there, or None to train on."""


@dataclasses.dataclass(frozen=True)
class EarlyStop:
    """Where a pipeline's training ended before its time.

    Attributes:
        rung: Number of the rung, counted from 1.
        epochs: Epochs of the full data that were trained until there.
        reason: The judge's reason.
    """

    rung: int
    epochs: float
    reason: str

    def judge(self, result: RungResult) -> str | None:
        """A ``RungJudge`` that stops at the same rung again."""
        return self.reason if result.rung == self.rung else None


class StoppedAtRung(TrialError):
    """Ends a node's training; ``model`` is what the node would return."""

    def __init__(self, stop: EarlyStop, model: nn.Module) -> None:
        super().__init__(stop.reason)
        self.stop = stop
        self.model = model


class RungCallback:
    """Judges a node's training at the rungs that it meets; a ``Context.on_step``.

    Size and multiply-accumulates are those of the shape that the pipeline will end with. So is the quality,
    except where later nodes train: what they will heal is not held against a pipeline. A model is not judged
    where it cannot be copied in training, or where later nodes cannot be applied to it yet.

    Args:
        task: Task on whose selection split the quality is taken.
        pipeline: The whole pipeline, of which one node trains.
        keys: Cache key of each node of the body.
        epochs: Epochs allotted to each node of the body.
        index: Index of the node in the body.
        moments: Moment of each rung in epochs of the whole pipeline, by number of the rung.
        judge: Decides at each rung.
        ledger: Counts a stop and the seconds of judging.
        clock: Seconds from any fixed moment.
    """

    def __init__(
        self,
        task: Task,
        pipeline: Pipeline,
        keys: Sequence[str],
        epochs: Sequence[int],
        index: int,
        moments: Mapping[int, float],
        judge: RungJudge,
        ledger: TrainingLedger,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._task, self._pipeline, self._keys, self._next = task, pipeline, keys, index + 1
        self._judge, self._ledger, self._clock = judge, ledger, clock
        self._epochs_before, self._epochs_in_all = sum(epochs[:index]), sum(epochs)
        self._later_nodes_train = any(epochs[index + 1 :])
        self._ahead = [(moment, rung) for rung, moment in moments.items() if moment > self._epochs_before]
        self._pace = _Pace(clock)

    def __call__(self, snapshot: Callable[[], nn.Module], trained: float) -> None:
        """Judge the model at each rung that was met with the last step.

        Args:
            snapshot: Makes a copy of the model as the node would return it now.
            trained: Epochs that the node has trained.

        Raises:
            StoppedAtRung: Where the judge says stop.
        """
        self._pace.reached(trained)
        epochs = self._epochs_before + trained
        while self._ahead and epochs >= self._ahead[0][0]:
            began = self._clock()
            try:
                with seeded(0):  # transforms of the data set draw from the generators that the training uses
                    self._meet(self._ahead.pop(0)[1], snapshot, epochs)
            finally:
                seconds = self._clock() - began
                self._ledger.judging_s += seconds
                self._pace.pause(seconds)

    def _meet(self, rung: int, snapshot: Callable[[], nn.Module], epochs: float) -> None:
        try:
            with foreign_errors_as(OperationFailed, "a copy of the model in training"):
                model = snapshot()
            final = apply_structure(model, self._pipeline, self._keys, self._task, first=self._next)
        except TrialError:
            return
        epochs_left = self._epochs_in_all - epochs
        result = RungResult(
            rung=rung,
            quality=quality_in_torch(model if self._later_nodes_train else final, self._task),
            size_bytes=fewest_bytes(final, self._task.example, self._pipeline.conversion),
            macs=count_macs(final, take(self._task.example, 1)),
            rest_s=self._pace.seconds * epochs_left,
        )
        reason = self._judge(result)
        if reason is not None:
            self._ledger.rung_stops = 1
            self._ledger.saved_epochs = epochs_left
            raise StoppedAtRung(EarlyStop(rung, epochs, reason), model)


class _Pace:
    """Seconds that a node takes for an epoch.

    What the node does before its first step does not count, unless it takes but one step.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began, self._epochs_then = clock(), 0.0
        self._stepped = False
        self.seconds = math.nan

    def reached(self, epochs: float) -> None:
        """Note after a step that so many epochs are trained."""
        now = self._clock()
        self.seconds = (now - self._began) / (epochs - self._epochs_then)
        if not self._stepped:
            self._stepped, self._began, self._epochs_then = True, now, epochs

    def pause(self, seconds: float) -> None:
        """Take out seconds that were not training."""
        self._began += seconds
