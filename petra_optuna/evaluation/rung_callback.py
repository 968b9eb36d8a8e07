"""Judging a pipeline while one of its nodes trains."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from petra_optuna.errors import MeasurementFailed, OperationFailed, TrialError, foreign_errors_as
from petra_optuna.evaluation.ledger import TrainingLedger
from petra_optuna.evaluation.preview import predicted_bytes, shaped
from petra_optuna.evaluation.rungs import Judge, RungResult, RungStop, Stopped
from petra_optuna.nn.counting import count_macs
from petra_optuna.nn.inputs import forward, take
from petra_optuna.pipeline import Pipeline
from petra_optuna.tasks import Task


def rung_callback(
    task: Task,
    pipeline: Pipeline,
    keys: Sequence[str],
    epochs: Sequence[int],
    index: int,
    moments: Mapping[int, float],
    judge: Judge,
    savings: TrainingLedger,
) -> Callable[[Callable[[], nn.Module], float], None]:
    """What judges a node's training at the rungs that it meets; for ``Context.watch``.

    Size and multiply-accumulates are those of the shape that the pipeline will end with. So is the quality,
    but where later nodes train: what they will heal is not held against a pipeline. One that cannot be
    copied in training, or whose later nodes cannot be applied yet, is not judged. ``RungStop`` ends the
    node's training.

    Args:
        task: Whose selection split the quality is taken on.
        pipeline: The whole one.
        keys: Of each node of the body.
        epochs: Of each node of the body.
        index: Of the node.
        moments: Epochs of the whole pipeline after which a rung is met, by number of the rung.
        judge: Asked at each.
        savings: Counts a stop and the seconds of judging.
    """
    earlier, total = sum(epochs[:index]), sum(epochs)
    ahead = [(moment, number) for number, moment in moments.items() if moment > earlier]
    heals = any(epochs[index + 1 :])

    pace = _Pace()

    def met(snapshot: Callable[[], nn.Module], number: int, done: float) -> None:
        try:
            with foreign_errors_as(OperationFailed, "a copy of the model in training"):
                model = snapshot()
            final = shaped(model, pipeline, keys, task, first=index + 1)
        except TrialError:
            return
        quality = quality_in_torch(model if heals else final, task)
        size = predicted_bytes(final, pipeline.conversion)
        macs = count_macs(final, take(task.example, 1))
        stop = judge(RungResult(number, quality, size, macs, pace.seconds * (total - done)))
        if stop is not None:
            savings.rung_stops = 1
            savings.saved_epochs = total - done
            raise RungStop(Stopped(number, done, stop), model)

    def watch(snapshot: Callable[[], nn.Module], trained: float) -> None:
        pace.reached(trained)
        while ahead and earlier + trained >= ahead[0][0]:
            began = time.perf_counter()
            try:
                met(snapshot, ahead.pop(0)[1], earlier + trained)
            finally:
                spent = time.perf_counter() - began
                savings.judging_s += spent
                pace.pause(spent)

    return watch


class _Pace:
    """Seconds an epoch of a node, without what it does before its first step unless it takes but one."""

    def __init__(self) -> None:
        self._began, self._from = time.perf_counter(), 0.0
        self._stepped = False
        self.seconds = math.nan

    def reached(self, trained: float) -> None:
        """Told after each step how many epochs are trained."""
        now = time.perf_counter()
        self.seconds = (now - self._began) / (trained - self._from)
        if not self._stepped:
            self._stepped, self._began, self._from = True, now, trained

    def pause(self, seconds: float) -> None:
        """So many seconds were not training."""
        self._began += seconds


def quality_in_torch(model: nn.Module, task: Task) -> float:
    """The task's metric of a model in evaluation mode on the selection split; not lowered."""
    with torch.no_grad(), foreign_errors_as(MeasurementFailed, task.metric.name):
        return task.evaluate(lambda inputs: forward(model, inputs).numpy(), task.selection)
