"""A pipeline becomes a file and the values measured on it. Knows nothing of Optuna."""

from __future__ import annotations

import dataclasses
import time
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from petra_optuna.deploy import CONV1D, Artifact, lower
from petra_optuna.errors import LoweringFailed, OperationFailed, TrialError, UserError, foreign_errors_as
from petra_optuna.evaluation import checkpoint
from petra_optuna.evaluation.budget import Budget
from petra_optuna.evaluation.cache import Entry, PrefixCache
from petra_optuna.evaluation.conv_layouts import faster_layout
from petra_optuna.evaluation.efficiency import counted
from petra_optuna.evaluation.keys import base_key, node_seed, prefix_keys
from petra_optuna.evaluation.ledger import TrainingLedger
from petra_optuna.evaluation.limits import Limits
from petra_optuna.evaluation.preview import Preview, ShapeHistory, preview
from petra_optuna.evaluation.quality import certified_inputs, quality_of
from petra_optuna.evaluation.record import Evaluation
from petra_optuna.evaluation.repair import LoweredModel, Repair, repaired
from petra_optuna.evaluation.rung_callback import rung_callback
from petra_optuna.evaluation.rungs import Judge, Rungs, RungStop, Stopped
from petra_optuna.measurement import Baseline, FileMeasurement
from petra_optuna.operations import Context
from petra_optuna.pipeline import Applied, Pipeline
from petra_optuna.runtimes import DEFAULT
from petra_optuna.tasks import Task


class LimitUnreachable(TrialError):
    """The structural preview breaks a hard limit; ``preview`` holds the predictions."""

    def __init__(self, message: str, preview: Preview) -> None:
        super().__init__(message)
        self.preview = preview


class Measurer(Protocol):
    """What the evaluator needs of the measuring process."""

    def measure(self, path: Path) -> FileMeasurement:
        """Measure the file against the baseline."""


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Trains, compresses, lowers and measures pipelines of one task under one budget.

    Attributes:
        task: The original model and its data; the test split is never touched.
        measurer: Measures files against the baseline, in a process of its own.
        baseline: What the measured ratios are multiplied with.
        folder: Where the files are written; the caller owns it.
        budget: Most training that a pipeline may spend.
        seed: Of every node, together with its place in the pipeline, and of the initialisation.
        cache: Shared prefixes; None computes everything cold.
        history: FileMeasurement shapes for the preview.
        limits: Hard limits; a preview that must break one raises ``LimitUnreachable``, and a file beyond the
            one on quality is repaired once (see ``repair``).
        rungs: When a pipeline is judged in its training; None never does.
        original: The task's metric of the original on selection; what the limit on quality is against.
        runtime: Name of what the files are made for; quality is computed in it.
        device: On which it runs.

    Raises:
        UserError: On construction, when quality is limited and ``original`` is None.
    """

    task: Task
    measurer: Measurer
    baseline: Baseline
    folder: Path
    budget: Budget = Budget()
    seed: int = 0
    cache: PrefixCache | None = None
    history: ShapeHistory | None = None
    limits: Limits = Limits()
    rungs: Rungs | None = None
    original: float | None = None
    runtime: str = DEFAULT
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check that a limit has what it is against."""
        if self.limits.quality_drop is not None and self.original is None:
            raise UserError("a limit on what quality may drop needs the original's: give original=")

    @cached_property
    def start(self) -> nn.Module:
        """The network that pipelines start from."""
        return self.task.start(self.seed)

    def evaluate(
        self, pipeline: Pipeline, judge: Judge | None = None, savings: TrainingLedger | None = None
    ) -> Evaluation:
        """Build the pipeline's file and measure it.

        Args:
            pipeline: What to build.
            judge: Asked at each rung; without it none is met. Where it says stop, the training ends, and the
                file is made of the model as it is there.
            savings: Counters to fill.

        Raises:
            TrialError: With the reason, when a node, the lowering or the measurement fails.
        """
        pipeline = pipeline.canonical()
        savings = TrainingLedger() if savings is None else savings
        start = base_key(self.task, self.seed)
        prediction = preview(pipeline, self.task, start, self.budget, self.history)
        most = self.limits.size_bytes
        if most is not None and prediction.certain and prediction.size_bytes > most:
            savings.preview_stops = 1
            savings.saved_epochs = sum(self.budget.allot(pipeline.body))
            raise LimitUnreachable(
                f"the preview counts at least {prediction.size_bytes:.0f} bytes, the limit is {most:.0f}",
                prediction,
            )
        body = self._body(pipeline, start, judge, savings)
        model, reports = body.model, body.reports
        first, repair = self._shipped(model, pipeline, start, CONV1D, savings)
        shipped, measured, forms = faster_layout(
            first,
            lambda form: self._lower(
                model, pipeline, start, form, repair=repair is not None and repair.shipped
            ),
            self.measurer.measure,
            self.baseline.values,
        )
        artifact = shipped.artifact
        values = {
            self.task.metric.name: shipped.quality,
            **self.baseline.values(measured),
            "size_bytes": float(artifact.size_bytes),
            "train_s": sum(_training_seconds(pipeline, reports)),
            **counted(model, pipeline, self.task),
        }
        if self.history is not None and (repair is None or not repair.shipped):
            self.history.put(model, pipeline.conversion, values["latency_ms"])
        return Evaluation(
            pipeline=pipeline,
            values=values,
            nodes=tuple(reports),
            artifact=artifact,
            checkpoint=checkpoint.to_bytes(model, self.task.model),
            measured=measured,
            best_throughput_batch=self.baseline.best(measured).batch,
            preview=prediction,
            reused_nodes=body.reused,
            repair=repair,
            convolutions=forms,
            stopped=body.stopped,
        )

    def build(
        self, pipeline: Pipeline, convolutions: str = CONV1D, stopped: Stopped | None = None
    ) -> Artifact:
        """The pipeline's file alone, repaired as ``evaluate`` would, not measured.

        Args:
            pipeline: What to build.
            convolutions: Form of one-dimensional ones, which ``evaluate`` chooses by measurement.
            stopped: Where the training ends before its time.

        Raises:
            TrialError: With the reason, when a node or the lowering fails, or when the training was not
                judged at the rung where it ends.
        """
        pipeline = pipeline.canonical()
        start = base_key(self.task, self.seed)
        body = self._body(pipeline, start, stopped.judge if stopped else None, TrainingLedger())
        if stopped is not None and body.stopped is None:
            raise OperationFailed(f"the training was to stop at rung {stopped.rung} and was not judged there")
        return self._shipped(body.model, pipeline, start, convolutions, TrainingLedger())[0].artifact

    def _shipped(
        self, model: nn.Module, pipeline: Pipeline, start: str, form: str, savings: TrainingLedger
    ) -> tuple[LoweredModel, Repair | None]:
        first = self._lower(model, pipeline, start, form)
        if self.original is None:
            return first, None
        return repaired(
            first,
            lambda: self._lower(model, pipeline, start, form, repair=True),
            model=model,
            conversion=pipeline.conversion,
            task=self.task,
            original=self.original,
            limits=self.limits,
            savings=savings,
        )

    def _lower(
        self, model: nn.Module, pipeline: Pipeline, start: str, form: str, *, repair: bool = False
    ) -> LoweredModel:
        context = dataclasses.replace(self._context(pipeline, start, epochs=0), repair=repair)
        path = self.folder / f"{pipeline.hash[:16]}{'-repaired' if repair else ''}-{form}.onnx"
        with foreign_errors_as(LoweringFailed, "lowering"):
            artifact = lower(
                model,
                self.task.example,
                path,
                pipeline.conversion,
                context,
                samples=certified_inputs(self.task.selection),
                convolutions=form,
                runtime=self.runtime,
                device=self.device,
            )
        place = self.runtime, self.device
        return LoweredModel(
            artifact, quality_of(path, self.task, self.task.selection, torch.get_num_threads(), *place)
        )

    def _context(self, pipeline: Pipeline, key: str, epochs: int) -> Context:
        return Context(
            task=self.task,
            recipe=pipeline.recipe,
            seed=node_seed(key),
            epochs=epochs,
            data_fraction=self.budget.data_fraction,
        )

    def _body(self, pipeline: Pipeline, start: str, judge: Judge | None, savings: TrainingLedger) -> _Body:
        keys = prefix_keys(start, pipeline, self.budget)
        model, reports = self._longest_prefix(keys, savings)
        reused = len(reports)
        savings.cache_hits = reused
        savings.cache_misses = len(keys) - reused if self.cache is not None else 0
        savings.cache_saved_s = sum(_training_seconds(pipeline, reports))
        epochs = self.budget.allot(pipeline.body)
        stopped: Stopped | None = None
        for index in range(reused, len(keys)):
            node = pipeline.body[index]
            context = self._context(pipeline, keys[index], 0 if stopped else epochs[index])
            if judge is not None and self.rungs is not None and stopped is None:
                moments = self.rungs.moments(self.budget, sum(epochs))
                watched = rung_callback(self.task, pipeline, keys, epochs, index, moments, judge, savings)
                context = dataclasses.replace(context, watch=watched)
            began, judged = time.perf_counter(), savings.judging_s
            try:
                with foreign_errors_as(OperationFailed, node.name):
                    applied = node.apply(model, context)
            except RungStop as stop:
                stopped = stop.stopped
                trained = stopped.epochs - sum(epochs[:index])
                applied = Applied(stop.model, {"changed": True, "epochs": trained, "stopped": stopped.reason})
            finally:
                seconds = time.perf_counter() - began - (savings.judging_s - judged)
                savings.train_s += seconds if node.kind == "training" else 0.0
            model = applied.model
            reports.append({"op": node.name, **applied.report, "seconds": seconds})
            if self.cache is not None and stopped is None:
                self.cache.put(keys[index], Entry(reports, checkpoint.to_bytes(model, self.task.model)))
        return _Body(model, reports, reused, stopped)

    def _longest_prefix(
        self, keys: tuple[str, ...], savings: TrainingLedger
    ) -> tuple[nn.Module, list[dict[str, Any]]]:
        def healed() -> None:
            savings.cache_healed += 1

        for key in reversed(keys):
            entry = self.cache.get(key, healed) if self.cache is not None else None
            if entry is not None:
                try:
                    return checkpoint.from_bytes(entry.checkpoint, self.task.model), list(entry.reports)
                except checkpoint.DamagedCheckpoint:  # computed again
                    healed()
        return self.start, []


@dataclasses.dataclass(frozen=True)
class _Body:
    """The model after the body, a report for every node, how many came from the cache, and a rung's stop."""

    model: nn.Module
    reports: list[dict[str, Any]]
    reused: int
    stopped: Stopped | None


def _training_seconds(pipeline: Pipeline, reports: list[dict[str, Any]]) -> list[float]:
    """Of each training node that has a report, wherever its result came from."""
    pairs = zip(pipeline.body, reports, strict=False)
    return [float(report["seconds"]) for node, report in pairs if node.kind == "training"]
