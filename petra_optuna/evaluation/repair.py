"""One repair of a file that loses too much quality: the layer group that loses most goes back to float.

Tried where rounding is to blame and the conversion has layers to put back: static INT8, that of
quantisation-aware training included. Its fixed ranges are what a few outliers spoil for a whole layer.
Dynamic INT8 takes each range from the batch itself, FP16 and BF16 have none. What ships is the file that
loses less; a tie goes to the first, which is smaller.

The rule is a part of how a study's pipelines become files: the same pipeline under the same limit gives the
same file, so a trial's parameters and hash stay those of its pipeline.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from torch import nn

from petra_optuna.deploy import Artifact
from petra_optuna.errors import TrialError
from petra_optuna.evaluation.ledger import TrainingLedger
from petra_optuna.evaluation.limits import QUALITY_DROP, Limits, quality_drop
from petra_optuna.evaluation.rung_callback import quality_in_torch
from petra_optuna.pipeline import Operation, float_layers
from petra_optuna.tasks import Task


@dataclasses.dataclass(frozen=True)
class LoweredModel:
    """A file, and the task's metric on the selection split, computed by running it."""

    artifact: Artifact
    quality: float


@dataclasses.dataclass(frozen=True)
class Repair:
    """What was done about a file that is beyond the limit on quality.

    Attributes:
        limit: Most that the metric may lose.
        original: The metric of the original.
        drop_before, size_before: What the first file loses, and its bytes.
        reason: Why no repair was tried, or why it failed; None where there is a second file.
        in_float: Names of the layers that are in float in the second file and not in the first.
        drop_after, size_after: Of the second file, None where there is none.
        shipped: Whether the second file is the one that ships.
    """

    limit: float
    original: float
    drop_before: float
    size_before: int
    reason: str | None = None
    in_float: tuple[str, ...] = ()
    drop_after: float | None = None
    size_after: int | None = None
    shipped: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**dataclasses.asdict(self), "in_float": list(self.in_float)}


def repaired(
    first: LoweredModel,
    again: Callable[[], LoweredModel],
    *,
    model: nn.Module,
    conversion: Operation | None,
    task: Task,
    original: float,
    limits: Limits,
    savings: TrainingLedger,
) -> tuple[LoweredModel, Repair | None]:
    """The file that ships, and what was tried; None where the first file keeps the limit or there is none.

    Args:
        first: The pipeline's file.
        again: Lowers once more with ``Context.repair``, to another path.
        model: Before the conversion.
        conversion: Of the pipeline.
        task: Whose metric is limited.
        original: The metric of the original.
        limits: Of the study.
        savings: Counts a repair.
    """

    def excess_of(quality: float) -> float:
        drop = quality_drop(quality, original, task.metric.direction)
        return limits.excess({QUALITY_DROP: drop}).get(QUALITY_DROP, 0.0)

    if limits.quality_drop is None or excess_of(first.quality) <= 0:
        return first, None
    missed = Repair(
        limit=limits.quality_drop,
        original=original,
        drop_before=quality_drop(first.quality, original, task.metric.direction),
        size_before=first.artifact.size_bytes,
    )
    if conversion is None or not conversion.can_repair:
        name = "without a conversion there are" if conversion is None else f"{conversion.name} has"
        return first, dataclasses.replace(missed, reason=f"{name} no layers to put back to float")
    unrounded = quality_in_torch(copy.deepcopy(model).eval(), task)
    if excess_of(unrounded) > 0:
        drop = quality_drop(unrounded, original, task.metric.direction)
        return first, dataclasses.replace(missed, reason=f"before the conversion it loses {drop:.4g} already")
    try:
        second = again()
    except TrialError as error:
        savings.repairs = 1
        return first, dataclasses.replace(missed, reason=f"{type(error).__name__}: {error}")
    savings.repairs = 1
    savings.repairs_within = int(excess_of(second.quality) <= 0)
    better = excess_of(second.quality) < excess_of(first.quality)
    shipped, dropped = (second, first) if better else (first, second)
    dropped.artifact.path.unlink()
    return shipped, dataclasses.replace(
        missed,
        in_float=tuple(sorted(_in_float(second) - _in_float(first))),
        drop_after=quality_drop(second.quality, original, task.metric.direction),
        size_after=second.artifact.size_bytes,
        shipped=better,
    )


def _in_float(lowered: LoweredModel) -> set[str]:
    return {layer["name"] for layer in float_layers(lowered.artifact.lowering["conversion"])}
