"""Judging a pipeline while one of its nodes trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from petra_optuna.errors import MeasurementFailed
from petra_optuna.evaluation.reasons import reason
from petra_optuna.evaluation.rungs import Judge, RungResult, RungStop
from petra_optuna.evaluation.savings import Savings
from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.inputs import forward, take
from petra_optuna.pipeline import Pipeline
from petra_optuna.tasks import Task


def watcher(
    task: Task,
    pipeline: Pipeline,
    before: nn.Module,
    epochs: Sequence[int],
    index: int,
    moments: Mapping[int, float],
    judge: Judge,
    savings: Savings,
) -> Callable[[nn.Module, float], None] | None:
    """What judges a node's training at the rungs that it meets; for ``Context.watch``.

    None where a later node still changes the shapes: nothing that is known then, neither size nor
    quality, says what becomes of the pipeline.

    Args:
        task: Whose selection split the quality is taken on.
        pipeline: The whole one.
        before: The model as the node gets it.
        epochs: Of each node of the body.
        index: Of the node.
        moments: Epochs of the whole pipeline after which a rung is met, by number of the rung.
        judge: Asked at each.
        savings: Counts a stop.
    """
    if any(node.kind == "structure" for node in pipeline.body[index:]):
        return None
    earlier, total = sum(epochs[:index]), sum(epochs)
    ahead = [(moment, number) for number, moment in moments.items() if moment > earlier]
    parameters, macs = count_parameters(before), count_macs(before, take(task.example, 1))
    conversion = pipeline.conversion.name if pipeline.conversion is not None else "none"

    def watch(model: nn.Module, trained: float) -> None:
        while ahead and earlier + trained >= ahead[0][0]:
            _, number = ahead.pop(0)
            model.eval()
            quality = quality_in_torch(model, task)
            model.train()
            stop = judge(RungResult(number, quality, parameters, macs, conversion))
            if stop is not None:
                savings.rung_stops = 1
                savings.saved_epochs = total - earlier - trained
                raise RungStop(stop)

    return watch


def quality_in_torch(model: nn.Module, task: Task) -> float:
    """The task's metric of a model in evaluation mode on the selection split; not lowered."""
    with torch.no_grad(), reason(MeasurementFailed, task.metric.name):
        return task.evaluate(lambda inputs: forward(model, inputs).numpy(), task.selection)
