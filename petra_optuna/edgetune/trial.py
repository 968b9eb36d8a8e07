"""One trial of a tuning study: a network trains from rung to rung, while its serving is tuned beside it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from torch import nn

from petra_optuna.deploy import Artifact, Templates, lower
from petra_optuna.edgetune.objective import TrialFigures, TuningObjective
from petra_optuna.edgetune.record import RungReached, TunedRecord, store_record
from petra_optuna.edgetune.specification import TuningSpecification
from petra_optuna.edgetune.training import TrialTraining
from petra_optuna.edgetune.workload import Workload
from petra_optuna.errors import LoweringFailed, MeasurementFailed, foreign_errors_as
from petra_optuna.evaluation import TrainingLedger, quality_in_torch, quality_of
from petra_optuna.inference import InferenceServer, Pause, Recommendation
from petra_optuna.measurement import Counter
from petra_optuna.nn.initialization import as_if_trained
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.nn.training import training_threads
from petra_optuna.pipeline import suggest_value
from petra_optuna.study import MODEL_FILE, TrialEnd, TrialRecord, this_worker


@dataclasses.dataclass
class TuningTrial:
    """The Optuna objective of a tuning study.

    Attributes:
        workload: What is tuned.
        specification: Specification of the study.
        objective: Value of a trial.
        artifacts: Where files go.
        folder: Folder of temporary files; the caller owns it.
        server: Answers how architectures are served; None for tuning without regard to inference.
        pause: Makes the training stand still for the server's last measurements.
        counter: Counter of energy; None where the objective needs none.
        templates: Graphs that were exported before.
        shapes: Shapes that were asked for, by the parameters of the model.

    Raises from a call:
        TrialError: The trial fails with this reason.
        optuna.TrialPruned: Hyperband ends the trial at a rung.
        StudyError: The artifact store or the temporary folder cannot be written; the study must stop.
    """

    workload: Workload
    specification: TuningSpecification
    objective: TuningObjective
    artifacts: FileSystemArtifactStore
    folder: Path
    server: InferenceServer | None
    pause: Pause
    counter: Counter | None = None
    templates: Templates = dataclasses.field(default_factory=Templates)
    shapes: dict[tuple[Any, ...], str] = dataclasses.field(default_factory=dict)

    def __call__(self, trial: optuna.Trial) -> tuple[float]:
        """Run one trial and give its value."""
        ledger = TrainingLedger()
        TrialRecord(trial).store_worker(this_worker())
        with TrialEnd(trial, ledger):
            parameters = {
                name: suggest_value(trial, name, one) for name, one in self.specification.space.items()
            }
            threads = parameters.get("train_threads", self.specification.train_threads)
            with training_threads(threads):
                return (self._run(trial, parameters, ledger),)

    def _run(self, trial: optuna.Trial, parameters: Mapping[str, Any], ledger: TrainingLedger) -> float:
        began = time.perf_counter()
        spec, budget = self.specification, self.specification.budget
        network = self.workload.network(parameters, spec.seed)
        waited_s = self._waited_s()
        shape = self._ask(network, parameters)
        training = TrialTraining(self.workload, network, parameters, spec.seed, self.pause.step, self.counter)
        record = TunedRecord((), energy_source=self.counter.source if self.counter else "")
        before = None
        for iteration in budget.rungs:
            segment = budget.segment(before, iteration)
            with self.pause.working():
                training.train(segment)
                quality = quality_in_torch(network, self.workload.task)
            ledger.train_s = training.train_s
            answer = self._answer(shape)
            figures = self._figures(quality, training, answer)
            value = self._value(figures)
            reached = RungReached(
                iteration, training.epochs, segment.data_fraction, training.train_s, quality, value
            )
            record = dataclasses.replace(
                record,
                rungs=(*record.rungs, reached),
                trial_s=time.perf_counter() - began,
                waited_s=self._waited_s() - waited_s,
                train_j=training.train_j,
                recommendation=answer,
            )
            store_record(trial, record)
            trial.report(value, iteration)
            if iteration != budget.last and trial.should_prune():
                self._store_excesses(trial, figures)
                raise optuna.TrialPruned(f"Hyperband ended it at iteration {iteration} of {budget.last}")
            before = iteration
        return self._finish(trial, network, training, record, shape)

    def _finish(
        self,
        trial: optuna.Trial,
        network: nn.Module,
        training: TrialTraining,
        record: TunedRecord,
        shape: str,
    ) -> float:
        """Make the file, and give the value by what was measured of it."""
        began, waited_s = time.perf_counter(), self._waited_s()
        path = self.folder / f"{trial.number}.onnx"
        with self.pause.working():
            artifact = self._lower(network, path)
            quality = quality_of(path, self.workload.task, self.workload.task.selection)
        feeds = to_feeds(self.workload.task.example)
        if self.server is not None and self.server.shape(path, feeds) != shape:  # training has changed it
            shape = self.server.ask(path, feeds)
        answer = self._answer(shape)
        stored = path.rename(self.folder / MODEL_FILE)
        artifact_id = upload_artifact(
            artifact_store=self.artifacts, file_path=str(stored), study_or_trial=trial
        )
        stored.unlink()
        record = dataclasses.replace(
            record,
            trial_s=record.trial_s + time.perf_counter() - began,
            waited_s=record.waited_s + self._waited_s() - waited_s,
            quality=quality,
            size_bytes=artifact.size_bytes,
            artifact_id=artifact_id,
            recommendation=answer,
        )
        store_record(trial, record)
        figures = self._figures(quality, training, answer)
        self._store_excesses(trial, figures)
        return self._value(figures)

    def _ask(self, network: nn.Module, parameters: Mapping[str, Any]) -> str:
        """Ask the server for the architecture, once for the same model parameters; the shape asked for."""
        if self.server is None:
            return ""
        key = tuple(parameters[name] for name in self.workload.model_space)
        if key not in self.shapes:
            path = self.folder / "architecture.onnx"
            with self.pause.working():
                self._lower(as_if_trained(network, self.specification.seed), path)
            self.shapes[key] = self.server.ask(path, to_feeds(self.workload.task.example))
            path.unlink()
        else:
            self.server.counts.hits += 1
        return self.shapes[key]

    def _answer(self, shape: str) -> Recommendation | None:
        return None if self.server is None else self.server.answer(shape)

    def _waited_s(self) -> float:
        return 0.0 if self.server is None else self.server.counts.waited_s

    def _lower(self, network: nn.Module, path: Path) -> Artifact:
        task = self.workload.task
        with foreign_errors_as(LoweringFailed, "lowering"):
            return lower(
                network,
                task.example,
                path,
                templates=self.templates,
                dynamic=task.dynamic,
                others=task.other_examples,
            )

    def _value(self, figures: TrialFigures) -> float:
        name = self.objective.name
        with foreign_errors_as(MeasurementFailed, f"objective {name!r}"):
            value = float(self.objective.function(figures))
        if not math.isfinite(value):
            raise MeasurementFailed(f"objective {name!r} is {value} at quality {figures.quality:g}")
        return value

    def _store_excesses(self, trial: optuna.Trial, figures: TrialFigures) -> None:
        """Tell Optuna's samplers by how much the trial is beyond each limit."""
        for limit in self.specification.limits:
            trial.set_constraint(str(limit), limit.excess(figures))

    def _figures(
        self, quality: float, training: TrialTraining, answer: Recommendation | None
    ) -> TrialFigures:
        served = self.specification.inferences
        energy = None if answer is None else answer.expected.get("energy_j")
        return TrialFigures(
            quality=quality,
            train_s=training.train_s,
            inference_s=None if answer is None else answer.seconds_per_sample * served,
            train_j=training.train_j,
            inference_j=None if energy is None else energy.value * served,
        )
