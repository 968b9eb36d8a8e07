"""The built-in tasks by name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from petra_optuna.errors import TaskError
from petra_optuna.tasks import ag_news, cifar10, detection, digits, speech
from petra_optuna.tasks.events import (
    age_group,
    alfa_battle,
    completejourney,
    credit_default,
    event_sequences,
)
from petra_optuna.tasks.series import appliances, time_series
from petra_optuna.tasks.task import Task


class TaskBuilder(Protocol):
    """Makes a built-in task."""

    def __call__(
        self, *, data_root: Path | None, checkpoint: Path | None, cache_dir: Path, seed: int
    ) -> Task:
        """Build the task; the arguments are those of ``build_task``."""


TASKS: dict[str, TaskBuilder] = {
    "ag_news": ag_news.build,
    "age_group": age_group.build,
    "alfa_battle": alfa_battle.build,
    "appliances": appliances.build,
    "appliances_archive": appliances.build_archive,
    "cifar10": cifar10.build,
    "completejourney": completejourney.build,
    "credit_default": credit_default.build,
    "detection": detection.build,
    "digits": digits.build,
    "event_sequences": event_sequences.build,
    "speech": speech.build,
    "time_series": time_series.build,
}


def build_task(
    name: str,
    *,
    data_root: Path | None = None,
    checkpoint: Path | None = None,
    cache_dir: Path = Path("storage/cache"),
    seed: int = 0,
) -> Task:
    """Build the built-in task of that name.

    Args:
        name: Name of the task, a key of ``TASKS``.
        data_root: Folder of the data, for tasks that need one.
        checkpoint: File with weights of the base model, for tasks that take one.
        cache_dir: Folder in which downloaded data and trained bases are kept.
        seed: Seed of the base's training.

    Raises:
        TaskError: When the name is unknown.
        DataError: When data or checkpoint cannot be used.

    Example:
        >>> task = build_task("digits", cache_dir=Path("bases"))
        >>> task.name
        'digits'
    """
    builder = TASKS.get(name)
    if builder is None:
        raise TaskError(
            f"unknown task {name!r}; known: {', '.join(TASKS)}; or build your own with `Task.from_loaders`"
        )
    return builder(data_root=data_root, checkpoint=checkpoint, cache_dir=cache_dir, seed=seed)
