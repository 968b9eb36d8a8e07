"""Training of one pipeline: what it may spend, what it spent, and what a whole budget would take."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping

from petra_optuna.errors import UserError
from petra_optuna.operations import Context, Train
from petra_optuna.pipeline import Operation, Recipe, allot
from petra_optuna.tasks import Task

_TIMED_STEPS = 8


@dataclasses.dataclass(frozen=True)
class Budget:
    """The most that one pipeline may train.

    Attributes:
        epochs: Epochs over all its training nodes together; nodes are served in order.
        data_fraction: Share of the training split that an epoch visits, in (0, 1].

    Raises:
        UserError: On construction, when a value is out of range.

    Example:
        >>> Budget(epochs=6, data_fraction=0.5).epochs
        6
    """

    epochs: int = 6
    data_fraction: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.epochs < 1:
            raise UserError(f"`budget.epochs` must be at least 1, got {self.epochs}")
        if not 0 < self.data_fraction <= 1:
            raise UserError(f"`budget.data_fraction` must be in (0, 1], got {self.data_fraction}")

    def allot(self, nodes: Iterable[Operation]) -> tuple[int, ...]:
        """Epochs for each node in order: what a training node asks for while the budget lasts, else 0."""
        return allot(nodes, self.epochs)


@dataclasses.dataclass
class TrainingLedger:
    """Counters of one evaluation: what it trained and was spared, a repair, and seconds beside training.

    They are filled while the evaluation runs, so that one that is stopped or fails has them too.

    Attributes:
        cache_hits: Nodes whose result came from the prefix cache.
        cache_misses: Nodes that were computed although there is a cache.
        cache_saved_s: Seconds of training that the cached nodes once took.
        cache_healed: Damaged entries that were removed.
        preview_stops: 1 where the preview stopped the pipeline.
        rung_stops: 1 where a rung stopped it.
        saved_epochs: Epochs of the allotment that were not trained because of a stop.
        repairs: 1 where a repair was tried for a file over the limit on quality loss, with whatever result.
        repairs_within: 1 where that brought it within the limit.
        train_s: Seconds that training nodes took here, a stopped one's included, without judging.
        judging_s: Seconds that judging at rungs took.
        exports: Models that were traced to become a file.
        exports_spared: Models whose structure had been traced before.
        export_s: Seconds that making graphs in FP32 took, their comparison with the model included.
        conversion_s: Seconds that conversions took.
        certificate_s: Seconds that checks of finished files took.
        quality_s: Seconds that quality of files took.
        measuring_s: Seconds that measuring took, waiting for the machine included.
        readings: Measurements that were taken of files.
        readings_spared: Files that were not measured, because their shape was known well enough.
    """

    cache_hits: int = 0
    cache_misses: int = 0
    cache_saved_s: float = 0.0
    cache_healed: int = 0
    preview_stops: int = 0
    rung_stops: int = 0
    saved_epochs: float = 0.0
    repairs: int = 0
    repairs_within: int = 0
    train_s: float = 0.0
    judging_s: float = 0.0
    exports: int = 0
    exports_spared: int = 0
    export_s: float = 0.0
    conversion_s: float = 0.0
    certificate_s: float = 0.0
    quality_s: float = 0.0
    measuring_s: float = 0.0
    readings: int = 0
    readings_spared: int = 0

    def count_file(self, seconds: Mapping[str, float], reused: bool) -> None:
        """Count a file that was made.

        Args:
            seconds: Seconds by phase: ``export``, ``conversion``, ``certificate`` and ``quality``.
            reused: Whether its model's structure had been traced before.
        """
        self.exports += not reused
        self.exports_spared += reused
        self.export_s += seconds["export"]
        self.conversion_s += seconds["conversion"]
        self.certificate_s += seconds["certificate"]
        self.quality_s += seconds["quality"]


def full_training_seconds(task: Task, budget: Budget) -> float:
    """Seconds in which the original would train for the whole budget: the scale on which ``train_s`` counts.

    They are extrapolated from a few training steps.

    Raises:
        TrialError: When the original cannot be trained.
    """
    recipe = Recipe()
    samples = min(len(task.train), _TIMED_STEPS * recipe.batch_size)
    context = Context(task, recipe, seed=0, epochs=1, data_fraction=samples / len(task.train))
    began = time.perf_counter()
    Train(epochs=1).apply(task.model, context)
    seconds = time.perf_counter() - began
    return seconds * budget.epochs * budget.data_fraction * len(task.train) / samples
