"""The objective: the only file where an Optuna trial meets an evaluator."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact

from petra_optuna.errors import (
    FOREIGN_ERRORS,
    MeasurementFailed,
    OperationFailed,
    PipelineError,
    one_line,
)
from petra_optuna.evaluation import (
    QUALITY_DROP,
    Evaluation,
    Evaluator,
    LimitUnreachable,
    TrainingLedger,
    quality_drop,
)
from petra_optuna.measurement import ShapeMeasurement
from petra_optuna.pipeline import Pipeline, SearchSpace, suggest
from petra_optuna.samplers import ShapeReadings, was_enqueued
from petra_optuna.study.controls import controls
from petra_optuna.study.rungs import rung_judge
from petra_optuna.study.specification import Specification
from petra_optuna.study.trial_end import TrialEnd
from petra_optuna.study.trial_record import TrialRecord
from petra_optuna.study.worker_identity import this_worker

MODEL_FILE = "model.onnx"
REBUILD_FILE = "rebuild.safetensors"


@dataclasses.dataclass(frozen=True)
class Objective:
    """Suggests a pipeline, evaluates it, stores what is known of it, returns the values of the objectives.

    Attributes:
        evaluator: Evaluates the pipelines.
        space: Search space of the pipelines.
        specification: Specification of the study.
        artifacts: Where files and weights go.

    Raises from a call:
        TrialError: The trial fails with this reason; pass ``catch=(TrialError,)`` to ``optimize``.
        optuna.TrialPruned: The structural preview breaks a hard limit.
        StudyError: The artifact store, the cache or the temporary folder cannot be written; the study must
            stop.
    """

    evaluator: Evaluator
    space: SearchSpace
    specification: Specification
    artifacts: FileSystemArtifactStore

    def __call__(self, trial: optuna.Trial) -> tuple[float, ...]:
        """Run one trial."""
        ledger = TrainingLedger()
        TrialRecord(trial).store_worker(this_worker())
        with TrialEnd(trial, ledger):
            try:
                evaluation = self._evaluate(trial, self._suggest(trial), ledger)
            except LimitUnreachable as stop:
                self._constrain(trial, {"size_bytes": stop.preview.size_bytes})
                raise optuna.TrialPruned(str(stop)) from stop
            self._constrain(trial, self._limited_values(evaluation))
        return tuple(evaluation.values[name] for name, _ in self.specification.objectives)

    def _suggest(self, trial: optuna.Trial) -> Pipeline:
        """The trial's pipeline; enqueued parameters that are not of the space fail the trial alone."""
        try:
            return suggest(trial, self.space)
        except (PipelineError, *FOREIGN_ERRORS) as error:
            if not was_enqueued(trial):
                raise
            raise OperationFailed(
                f"the enqueued parameters are not of this search space: {one_line(error)}"
            ) from error

    def _evaluate(self, trial: optuna.Trial, pipeline: Pipeline, ledger: TrainingLedger) -> Evaluation:
        """Evaluate the pipeline and store its evaluation."""
        violations = self.space.violations(pipeline)
        if violations:
            raise OperationFailed(f"illegal pipeline: {'; '.join(violations)}")
        judge = rung_judge(trial, self.specification, spared=self._is_control(pipeline))
        evaluation = self.evaluator.evaluate(pipeline, judge, ledger)
        self._check_measured(evaluation.values)
        self._store(trial, evaluation)
        return evaluation

    def _check_measured(self, values: Mapping[str, float]) -> None:
        """Refuse an objective without a number: Optuna would fail the trial without saying why."""
        names = [name for name, _ in self.specification.objectives]
        unmeasured = [name for name in names if not math.isfinite(values.get(name, math.nan))]
        if unmeasured:
            raise MeasurementFailed(f"{', '.join(unmeasured)} could not be measured")

    def _is_control(self, pipeline: Pipeline) -> bool:
        spared = controls(self.space, self.specification.budget)
        return pipeline.hash in {control.hash for control in spared}

    def _limited_values(self, evaluation: Evaluation) -> Mapping[str, float]:
        """The values of an evaluation, and what its quality lost."""
        baseline_quality = self.evaluator.baseline_quality
        if baseline_quality is None:
            return evaluation.values
        quality = evaluation.values[self.specification.metric]
        drop = quality_drop(quality, baseline_quality, self.specification.direction)
        return {**evaluation.values, QUALITY_DROP: drop}

    def _constrain(self, trial: optuna.Trial, values: Mapping[str, float]) -> None:
        for name, violation in self.specification.limits.violations(values).items():
            trial.set_constraint(name, violation)

    def _store(self, trial: optuna.Trial, evaluation: Evaluation) -> None:
        stored = evaluation.to_dict()
        with tempfile.TemporaryDirectory(dir=self.evaluator.folder) as folder:
            model, rebuild = Path(folder, MODEL_FILE), Path(folder, REBUILD_FILE)
            evaluation.artifact.path.replace(model)
            rebuild.write_bytes(evaluation.checkpoint)
            stored["artifact"]["id"] = self._upload(trial, model)
            stored["rebuild"] = {"id": self._upload(trial, rebuild)}
        record = TrialRecord(trial)
        record.store_evaluation(stored)
        record.store_shape(_readings(evaluation.measured))

    def _upload(self, trial: optuna.Trial, path: Path) -> str:
        return upload_artifact(artifact_store=self.artifacts, file_path=str(path), study_or_trial=trial)


def _readings(measured: ShapeMeasurement) -> ShapeReadings:
    """What the sampler and the front read of a file's measurements."""
    return ShapeReadings(measured.shape, measured.known, counted=("size_bytes",))
