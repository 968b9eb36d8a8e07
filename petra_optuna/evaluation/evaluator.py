"""A pipeline becomes a file and the values measured on it. Knows nothing of Optuna."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from torch import nn

from petra_optuna.aliases import TrainPrecision
from petra_optuna.deploy import CONV1D, Artifact, Templates
from petra_optuna.errors import OperationFailed, TrialError, UserError
from petra_optuna.evaluation import checkpoint
from petra_optuna.evaluation.budget import Budget, TrainingLedger
from petra_optuna.evaluation.cache import PrefixCache
from petra_optuna.evaluation.efficiency import count_values
from petra_optuna.evaluation.keys import base_key, node_seed
from petra_optuna.evaluation.limits import Limits
from petra_optuna.evaluation.preview import Preview, preview
from petra_optuna.evaluation.record import Evaluation
from petra_optuna.evaluation.rungs import EarlyStop, RungJudge, Rungs
from petra_optuna.evaluation.shipping import Shipment
from petra_optuna.evaluation.training import Body, BodyBuilder, training_seconds
from petra_optuna.measurement import ShapeMeasurement, ShapeMeasurer
from petra_optuna.operations import Context
from petra_optuna.pipeline import Pipeline
from petra_optuna.runtimes import DEFAULT
from petra_optuna.tasks import Task


class LimitUnreachable(TrialError):
    """The structural preview predicts a file over the limit on size; ``preview`` holds the predictions."""

    def __init__(self, message: str, preview: Preview) -> None:
        super().__init__(message)
        self.preview = preview


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Trains, compresses, lowers and measures pipelines of one task under one budget.

    Attributes:
        task: The original model and its data; the test split is never touched.
        measurer: Measures files against the baseline.
        folder: Folder that the files are written to; the caller owns it.
        budget: Most training that a pipeline may spend.
        seed: Seed of the initialisation and, together with its place in the pipeline, of every node.
        cache: Shared prefixes; None for no cache.
        limits: Hard limits. A preview that is certain to violate the one on size raises
            ``LimitUnreachable``; a file that violates the one on quality is repaired once
            (see ``shipping``).
        rungs: Moments at which a pipeline is judged in its training; None for no rungs.
        baseline_quality: The task's metric of the baseline on selection, which a limit on quality needs.
        runtime: Name of the runtime that the files are made for; quality is computed in it.
        device: Device on which it runs.
        train_precision: Type in which forward passes of training run.
        templates: Graphs of models that were exported before, which spare exporting their like.
        tune_inference: Replaces the speed of a measured file by that of serving it best; None for the speed
            of the study's own batch sizes and threads.

    Raises:
        UserError: On construction, when quality is limited and ``baseline_quality`` is None.
    """

    task: Task
    measurer: ShapeMeasurer
    folder: Path
    budget: Budget = Budget()
    seed: int = 0
    cache: PrefixCache | None = None
    limits: Limits = Limits()
    rungs: Rungs | None = None
    baseline_quality: float | None = None
    runtime: str = DEFAULT
    device: str = "cpu"
    train_precision: TrainPrecision = "auto"
    templates: Templates = dataclasses.field(default_factory=Templates, compare=False)
    tune_inference: Callable[[Path, ShapeMeasurement], ShapeMeasurement] | None = None

    def __post_init__(self) -> None:
        """Check that a limit on quality has what it is compared with."""
        if self.limits.quality_drop is not None and self.baseline_quality is None:
            raise UserError("`limits.quality_drop` needs the baseline's quality: give `baseline_quality`")

    @cached_property
    def start(self) -> nn.Module:
        """The network that pipelines start from."""
        return self.task.start(self.seed)

    def evaluate(
        self, pipeline: Pipeline, judge: RungJudge | None = None, ledger: TrainingLedger | None = None
    ) -> Evaluation:
        """Build the pipeline's file and measure it.

        Args:
            pipeline: Pipeline to build.
            judge: Decides at each rung; None for no rungs. Where it says stop, the training ends, and the
                file is made of the model as it stands there.
            ledger: Counters to fill, also where this raises.

        Raises:
            TrialError: With the reason, when a node, the lowering or the measurement fails.
            LimitUnreachable: When the preview is certain to violate the limit on size; nothing was trained.
        """
        pipeline = pipeline.canonical()
        ledger = TrainingLedger() if ledger is None else ledger
        key = base_key(self.task, self.seed, self.train_precision)
        builder = self._builder(pipeline, key, judge, ledger)
        body = builder.begin()
        prediction = self._preview(builder, body)
        body = builder.finish(body)
        shipment = self._shipment(body.model, pipeline, key, ledger)
        lowered, repair = shipment.repair(shipment.lower())
        lowered, measured, layouts = shipment.choose_layout(lowered, self.measurer)
        if self.tune_inference is not None:
            measured = self.tune_inference(lowered.artifact.path, measured)
        values = {
            self.task.metric.name: lowered.quality,
            **measured.values,
            "size_bytes": float(lowered.artifact.size_bytes),
            "train_s": training_seconds(pipeline, body.reports),
            **count_values(body.model, pipeline, self.task),
        }
        return Evaluation(
            pipeline=pipeline,
            values=values,
            nodes=tuple(body.reports),
            artifact=lowered.artifact,
            checkpoint=checkpoint.to_bytes(body.model, self.task.model),
            measured=measured,
            preview=prediction,
            reused_nodes=body.reused_nodes,
            repair=repair,
            convolutions=layouts,
            stopped=body.stop,
        )

    def build(self, pipeline: Pipeline, layout: str = CONV1D, stop: EarlyStop | None = None) -> Artifact:
        """Build the pipeline's file alone, repaired as ``evaluate`` would, not measured.

        Args:
            pipeline: Pipeline to build.
            layout: Layout of one-dimensional convolutions, which ``evaluate`` chooses by measurement.
            stop: Where the training ends before its time.

        Raises:
            TrialError: With the reason, when a node or the lowering fails, or when the training was not
                judged at the rung where it ends.
        """
        pipeline = pipeline.canonical()
        key, ledger = base_key(self.task, self.seed, self.train_precision), TrainingLedger()
        builder = self._builder(pipeline, key, stop.judge if stop else None, ledger)
        body = builder.finish(builder.begin())
        if stop is not None and body.stop is None:
            raise OperationFailed(f"the training was to stop at rung {stop.rung} and was not judged there")
        shipment = self._shipment(body.model, pipeline, key, ledger)
        return shipment.repair(shipment.lower(layout))[0].artifact

    def _preview(self, builder: BodyBuilder, body: Body) -> Preview | None:
        """Preview the pipeline; a trained model's first nodes are not applied twice.

        Without a limit on size there is no preview for which other nodes would be applied twice.
        """
        pipeline, ledger, limit = builder.pipeline, builder.ledger, self.limits.size_bytes
        start = builder.led(body) if self.task.mode == "pretrained" else None
        applied = builder.leading if start is not None else 0
        if limit is None and any(node.kind == "structure" for node in pipeline.body[applied:]):
            return None
        prediction = preview(
            pipeline,
            self.task,
            builder.base_key,
            self.budget,
            start=start,
            applied=applied,
        )
        if limit is not None and prediction.certain and prediction.size_bytes > limit:
            ledger.preview_stops = 1
            ledger.saved_epochs = sum(self.budget.allot(pipeline.body))
            raise LimitUnreachable(
                f"the preview counts at least {prediction.size_bytes:.0f} bytes, the limit is {limit:.0f}",
                prediction,
            )
        return prediction

    def _builder(
        self, pipeline: Pipeline, key: str, judge: RungJudge | None, ledger: TrainingLedger
    ) -> BodyBuilder:
        return BodyBuilder(
            task=self.task,
            pipeline=pipeline,
            start=lambda: self.start,
            base_key=key,
            budget=self.budget,
            ledger=ledger,
            cache=self.cache,
            rungs=self.rungs,
            judge=judge,
            train_precision=self.train_precision,
        )

    def _shipment(self, model: nn.Module, pipeline: Pipeline, key: str, ledger: TrainingLedger) -> Shipment:
        return Shipment(
            model=model,
            task=self.task,
            path=self.folder / f"{pipeline.hash[:16]}.onnx",
            conversion=pipeline.conversion,
            context=Context(
                task=self.task,
                recipe=pipeline.recipe,
                seed=node_seed(key),
                epochs=0,
                data_fraction=self.budget.data_fraction,
            ),
            certified=True,
            runtime=self.runtime,
            device=self.device,
            limits=self.limits,
            baseline_quality=self.baseline_quality,
            ledger=ledger,
            templates=self.templates,
        )
