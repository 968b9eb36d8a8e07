"""Tasks: the model to compress, its data splits and its metric."""

from petra_optuna.tasks.guard import open_once
from petra_optuna.tasks.metrics import Metric
from petra_optuna.tasks.outputs import Outputs, joined_targets
from petra_optuna.tasks.registry import TASKS, build_task
from petra_optuna.tasks.split import Split
from petra_optuna.tasks.task import Mode, Task

__all__ = ["TASKS", "Metric", "Mode", "Outputs", "Split", "Task", "build_task", "joined_targets", "open_once"]
