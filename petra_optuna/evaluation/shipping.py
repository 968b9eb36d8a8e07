"""A model becomes the file that ships: lowered, repaired if it loses too much quality, in the faster layout.

**Repair.** A file that loses too much quality is made once more, with the layer group that loses most in
float. This is tried where rounding is to blame and the conversion has layers to put back: static INT8, that
of quantisation-aware training included. Its fixed ranges are what a few outliers spoil for a whole layer.
Dynamic INT8 takes each range from the batch itself, FP16 and BF16 have none. What ships is the file that
loses less; a tie goes to the first, which is smaller. The rule is a part of how a study's pipelines become
files: the same pipeline under the same limit gives the same file, so a trial's parameters and hash stay
those of its pipeline.

**Layout.** One-dimensional convolutions are exported as they are or as two-dimensional ones. Both files are
made and measured. They compute the same, so speed alone decides. Latency and throughput count alike, by
ratio: the layout with the smaller geometric mean of both times ships. Within 3 %, where a reader calls it a
tie, the layout as exported stays. One that cannot be made or measured does not ship, and the record says
why.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from petra_optuna.deploy import CONV1D, CONV2D, Artifact, Templates, lower
from petra_optuna.errors import LoweringFailed, TrialError, foreign_errors_as
from petra_optuna.evaluation.budget import TrainingLedger
from petra_optuna.evaluation.limits import QUALITY_DROP, Limits, quality_drop
from petra_optuna.evaluation.quality import certified_inputs, quality_in_torch, quality_of
from petra_optuna.evaluation.room import room_to_build
from petra_optuna.measurement import ShapeMeasurement, ShapeMeasurer
from petra_optuna.operations import Context
from petra_optuna.pipeline import Operation, float_layers
from petra_optuna.runtimes import DEFAULT
from petra_optuna.stopwatch import Stopwatch
from petra_optuna.tasks import Task

_SPEED = ("latency_ms", "throughput_per_s")
_TIE = 0.03


@dataclasses.dataclass(frozen=True)
class LoweredModel:
    """A file that a model was lowered to.

    Attributes:
        artifact: The file.
        quality: The task's metric on the selection split, computed by running the file.
        layout: Layout that its one-dimensional convolutions have, if it has any.
        keep_float: Whether the conversion left one more group of layers in float.
    """

    artifact: Artifact
    quality: float
    layout: str = CONV1D
    keep_float: bool = False


@dataclasses.dataclass(frozen=True)
class Repair:
    """What was done about a file that violates the limit on quality.

    Attributes:
        limit: Most that the metric may lose.
        original: Metric of the baseline.
        drop_before: Loss of the first file, in the metric's unit.
        size_before: Bytes of the first file.
        reason: Why no repair was tried, or why it failed; None where there is a second file.
        in_float: Names of the layers that are in float in the second file and not in the first.
        drop_after: Loss of the second file; None where there is none.
        size_after: Bytes of the second file; None where there is none.
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


@dataclasses.dataclass(frozen=True)
class ConvLayouts:
    """A file's two layouts of one-dimensional convolutions, and which of them ships.

    Attributes:
        shipped: The layout that ships.
        values: ``latency_ms`` and ``throughput_per_s`` by layout.
        failure: Why the two-dimensional layout is missing; None where it is not.
    """

    shipped: str
    values: Mapping[str, Mapping[str, float]]
    failure: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Shipment:
    """Makes the files that one model may ship as, and removes those that do not ship.

    Attributes:
        model: Model before the conversion; not changed.
        task: Task on whose selection split quality is computed.
        path: Path of the first file; the others lie beside it.
        conversion: Conversion of the pipeline; None for FP32.
        context: Context of the conversion; None where there is none.
        certified: Whether the parity certificate is made on samples of the selection split; otherwise on the
            task's example.
        runtime: Name of the runtime that the files are for; quality is computed in it.
        device: Device on which it runs.
        limits: Limits of the study, of which that on quality decides about a repair.
        baseline_quality: Metric of the baseline, which a limit on quality needs.
        ledger: Counts files, their seconds, and a repair.
        templates: Graphs of models that were exported before; those of this one are added.
    """

    model: nn.Module
    task: Task
    path: Path
    conversion: Operation | None = None
    context: Context | None = None
    certified: bool = False
    runtime: str = DEFAULT
    device: str = "cpu"
    limits: Limits = Limits()
    baseline_quality: float | None = None
    ledger: TrainingLedger = dataclasses.field(default_factory=TrainingLedger)
    templates: Templates = dataclasses.field(default_factory=Templates)

    def lower(self, layout: str = CONV1D, *, keep_float: bool = False) -> LoweredModel:
        """Make one file and compute its quality.

        Args:
            layout: Layout of one-dimensional convolutions.
            keep_float: Whether the conversion leaves one more group of layers in float.

        Raises:
            TrialError: With the reason, when the file cannot be made or run.
            StudyError: When the temporary folder is full.
        """
        marks = ("-repaired" if keep_float else "") + (f"-{layout}" if layout != CONV1D else "")
        path = self.path.with_stem(f"{self.path.stem}{marks}")
        context = dataclasses.replace(self.context, repair=keep_float) if self.context else None
        with room_to_build(self.model), foreign_errors_as(LoweringFailed, "lowering"):
            artifact = lower(
                self.model,
                self.task.example,
                path,
                self.conversion,
                context,
                samples=certified_inputs(self.task) if self.certified else None,
                convolutions=layout,
                runtime=self.runtime,
                device=self.device,
                templates=self.templates,
                dynamic=self.task.dynamic,
                others=self.task.other_examples,
            )
        watch = Stopwatch()
        threads = torch.get_num_threads()
        quality = quality_of(path, self.task, self.task.selection, threads, self.runtime, self.device)
        watch.lap("quality")
        self.ledger.count_file({**artifact.seconds, **watch.seconds}, artifact.reused)
        return LoweredModel(artifact, quality, layout, keep_float)

    def repair(self, first: LoweredModel) -> tuple[LoweredModel, Repair | None]:
        """Repair a file that violates the limit on quality, in the same layout.

        Returns:
            The file that ships, and what was tried; None where ``first`` keeps the limit or there is none.

        Raises:
            MeasurementFailed: When the model before the conversion cannot be run.
        """
        if self.limits.quality_drop is None or self.baseline_quality is None or self._keeps(first.quality):
            return first, None
        attempt = Repair(
            limit=self.limits.quality_drop,
            original=self.baseline_quality,
            drop_before=self._drop(first.quality),
            size_before=first.artifact.size_bytes,
        )
        reason = self._why_no_repair()
        if reason is not None:
            return first, dataclasses.replace(attempt, reason=reason)
        try:
            second = self.lower(first.layout, keep_float=True)
        except TrialError as error:
            self.ledger.repairs = 1
            return first, dataclasses.replace(attempt, reason=f"{type(error).__name__}: {error}")
        self.ledger.repairs = 1  # not before: a trial that is killed in its repair is run again
        self.ledger.repairs_within = int(self._keeps(second.quality))
        second_ships = self._violation(second.quality) < self._violation(first.quality)
        shipped, dropped = (second, first) if second_ships else (first, second)
        dropped.artifact.path.unlink()
        return shipped, dataclasses.replace(
            attempt,
            in_float=tuple(sorted(_layers_in_float(second) - _layers_in_float(first))),
            drop_after=self._drop(second.quality),
            size_after=second.artifact.size_bytes,
            shipped=second_ships,
        )

    def choose_layout(
        self, first: LoweredModel, measurer: ShapeMeasurer
    ) -> tuple[LoweredModel, ShapeMeasurement, ConvLayouts | None]:
        """Measure a file in both layouts and choose the faster one.

        Args:
            first: The file with its convolutions as exported.
            measurer: Measures files.

        Returns:
            The file that ships, its measurement, and how both layouts compare; None where the model has no
            one-dimensional convolutions.

        Raises:
            TrialError: When ``first`` cannot be measured.
        """
        measured = self._measured(first, measurer)
        if first.artifact.lowering["convolutions"] is None:
            return first, measured, None
        values = {CONV1D: _speed(measured)}
        second = None
        try:
            second = self.lower(CONV2D, keep_float=first.keep_float)
            second_measured = self._measured(second, measurer)
        except TrialError as error:
            if second is not None:
                second.artifact.path.unlink()
            return first, measured, ConvLayouts(CONV1D, values, f"{type(error).__name__}: {error}")
        values[CONV2D] = _speed(second_measured)
        if _mean_time(values[CONV2D]) < (1 - _TIE) * _mean_time(values[CONV1D]):
            first.artifact.path.unlink()
            return second, second_measured, ConvLayouts(CONV2D, values)
        second.artifact.path.unlink()
        return first, measured, ConvLayouts(CONV1D, values)

    def _measured(self, lowered: LoweredModel, measurer: ShapeMeasurer) -> ShapeMeasurement:
        watch = Stopwatch()
        try:
            measured = measurer.measure(lowered.artifact.path)
        finally:
            watch.lap("measuring")
            self.ledger.measuring_s += watch.seconds["measuring"]
        self.ledger.readings += measured.taken
        self.ledger.readings_spared += int(measured.taken == 0)
        return measured

    def _why_no_repair(self) -> str | None:
        """Why layers in float cannot help; None where they may."""
        if self.conversion is None:
            return "without a conversion there are no layers to put back to float"
        if not self.conversion.can_repair:
            return f"{self.conversion.name} has no layers to put back to float"
        quality = quality_in_torch(copy.deepcopy(self.model).eval(), self.task)
        if self._violation(quality) > 0:
            return f"before the conversion it loses {self._drop(quality):.4g} already"
        return None

    def _keeps(self, quality: float) -> bool:
        return self._violation(quality) <= 0

    def _violation(self, quality: float) -> float:
        return self.limits.violations({QUALITY_DROP: self._drop(quality)})[QUALITY_DROP]

    def _drop(self, quality: float) -> float:
        assert self.baseline_quality is not None
        return quality_drop(quality, self.baseline_quality, self.task.metric.direction)


def _layers_in_float(lowered: LoweredModel) -> set[str]:
    return {layer["name"] for layer in float_layers(lowered.artifact.lowering["conversion"])}


def _speed(measured: ShapeMeasurement) -> dict[str, float]:
    values = measured.values
    return {name: values[name] for name in _SPEED}


def _mean_time(values: Mapping[str, float]) -> float:
    """Geometric mean of latency and time a sample, up to a factor that is the same for both layouts."""
    return math.sqrt(values["latency_ms"] / values["throughput_per_s"])
