"""What an operation may know besides the model: task, recipe, and its node's seed, epochs and data share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from petra_optuna.aliases import TrainPrecision
from petra_optuna.nn.inputs import Inputs
from petra_optuna.pipeline import Recipe
from petra_optuna.tasks.calibration import calibration_batches
from petra_optuna.tasks.task import Task

CHECK_SAMPLES = 32
"""Calibration samples on which a structural node is checked."""


SEARCH_S = 1800.0
"""Seconds of the longest search of a structural node."""


@dataclasses.dataclass(frozen=True)
class Context:
    """Surroundings in which ``Operation.apply`` works.

    Attributes:
        task: Data, loss and the original model, which is the teacher of distillation where it is trained.
        recipe: Model-level parameters.
        seed: Seed of all randomness of the node.
        epochs: Most epochs that this node may spend; 0 for nodes that do not train.
        data_fraction: Share of the training split that an epoch reads.
        search_s: Most seconds that a structural node may search for what to remove.
        repair: Whether a conversion that can shall leave one more group of layers in float, the one that
            loses most.
        train_precision: Type in which forward passes of training run; ``auto`` decides by device and model.
        on_step: Called after each training step with two arguments: a function that makes a copy of the
            model as the node would return it now, and the epochs that the node has trained, a fraction. It
            must leave the state of randomness as it is; what it raises ends the training.

    Example:
        >>> context = Context(task=task, recipe=Recipe(), seed=0, epochs=1)
        >>> Train(epochs=1).apply(model, context).report["epochs"]
        1
    """

    task: Task
    recipe: Recipe
    seed: int
    epochs: int
    data_fraction: float = 1.0
    repair: bool = False
    search_s: float = SEARCH_S
    train_precision: TrainPrecision = "auto"
    on_step: Callable[[Callable[[], nn.Module], float], None] | None = None

    @property
    def regression(self) -> bool:
        """Whether the task's targets are values and not classes."""
        return self.task.metric.regression

    def calibration_batches(self, limit: int = 256, batch_size: int = 64) -> Iterator[tuple[Inputs, Tensor]]:
        """At most ``limit`` samples of the calibration split, the same ones each time, no batch of one."""
        size = min(batch_size, max(2, self.task.samples_per_call))
        return calibration_batches(self.task.calibration, limit, size)

    def calibration_sample(self) -> Inputs:
        """A batch of the calibration split on which structural nodes check what they have made."""
        inputs, _ = next(self.calibration_batches(limit=CHECK_SAMPLES, batch_size=CHECK_SAMPLES))
        return inputs
