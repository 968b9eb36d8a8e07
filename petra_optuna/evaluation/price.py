"""What a whole budget of training would take: the scale on which ``train_s`` counts."""

from __future__ import annotations

import time

from petra_optuna.evaluation.budget import Budget
from petra_optuna.operations import Context, Train
from petra_optuna.pipeline import Recipe
from petra_optuna.tasks import Task

_STEPS = 8


def full_training_seconds(task: Task, budget: Budget) -> float:
    """Seconds in which the original would train for the whole budget, from a few steps of it.

    Raises:
        TrialError: When the original cannot be trained.
    """
    recipe = Recipe()
    samples = min(len(task.train), _STEPS * recipe.batch_size)
    context = Context(task, recipe, seed=0, epochs=1, data_fraction=samples / len(task.train))
    began = time.perf_counter()
    Train(epochs=1).apply(task.model, context)
    seconds = time.perf_counter() - began
    return seconds * budget.epochs * budget.data_fraction * len(task.train) / samples
