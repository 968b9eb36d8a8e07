"""Base model, data splits and metric of what is compressed."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from petra_optuna.errors import TaskError
from petra_optuna.tasks import cifar10, digits
from petra_optuna.tasks.guard import open_once
from petra_optuna.tasks.metrics import Metric, metric
from petra_optuna.tasks.outputs import Outputs
from petra_optuna.tasks.split import Split, default_unpack
from petra_optuna.tasks.task import Mode, Task


class TaskBuilder(Protocol):
    """Makes a built-in task."""

    def __call__(
        self, *, data_root: Path | None, checkpoint: Path | None, cache_dir: Path, seed: int
    ) -> Task:
        """Build it; arguments as in ``build_task``."""


TASKS: dict[str, TaskBuilder] = {"cifar10": cifar10.build, "digits": digits.build}


def build_task(
    name: str,
    *,
    data_root: Path | None = None,
    checkpoint: Path | None = None,
    cache_dir: Path = Path("storage/cache"),
    seed: int = 0,
) -> Task:
    """The built-in task of that name.

    Args:
        name: A key of ``TASKS``.
        data_root: Where the data lies, for tasks that need it.
        checkpoint: Weights of the base model, for tasks that take them.
        cache_dir: Where downloaded data and trained bases are kept.
        seed: Of the base's training.

    Raises:
        TaskError: When the name is unknown.
        DataError: When data or checkpoint cannot be used.
    """
    builder = TASKS.get(name)
    if builder is None:
        raise TaskError(
            f"unknown task {name!r}; known: {', '.join(TASKS)}; or build your own with Task.from_loaders"
        )
    return builder(data_root=data_root, checkpoint=checkpoint, cache_dir=cache_dir, seed=seed)


__all__ = [
    "TASKS",
    "Metric",
    "Mode",
    "Outputs",
    "Split",
    "Task",
    "TaskBuilder",
    "build_task",
    "default_unpack",
    "metric",
    "open_once",
]
