"""Creating a study with its baseline and controls.

The study is made in memory and stored in one transaction. A process that is killed while it makes a study
leaves nothing, and of several that make one at the same time all but the first continue the first one's.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import RDBStorage

from petra_optuna.database import sqlite_folder
from petra_optuna.errors import StudyError, TaskError, TrialError
from petra_optuna.evaluation import (
    QUALITY_DROP,
    efficiency_metric,
    full_training_seconds,
)
from petra_optuna.evolution import Bounds
from petra_optuna.inference import Recommendation, ServingTuner
from petra_optuna.measurement import ShapeStore
from petra_optuna.pipeline import FieldPrior, Pipeline, SearchSpace, encode
from petra_optuna.samplers import OperatorUse, store_whole
from petra_optuna.scratch import scratch_folder
from petra_optuna.study.baseline import BASELINE_FILE, measure_baseline
from petra_optuna.study.controls import controls
from petra_optuna.study.draft import draft_study
from petra_optuna.study.lookup import find
from petra_optuna.study.record import StudyRecord, artifact_store, may_be_replaced
from petra_optuna.study.serving import serving_tuner
from petra_optuna.study.specification import Specification, WarmStart
from petra_optuna.study.trained_baseline import with_trained_baseline
from petra_optuna.tasks import Task

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class InitialTrials:
    """What a new search begins with besides its baseline and controls.

    Attributes:
        pipelines: Pipelines that are enqueued after the controls.
        warm_start: What is taken over from another study; None where nothing is.
        credit: Mutations with which the sampler's success history begins, oldest first.
        priors: Where the fields of new nodes are mostly drawn; None for anywhere.
    """

    pipelines: tuple[Pipeline, ...] = ()
    warm_start: WarmStart | None = None
    credit: tuple[OperatorUse, ...] = ()
    priors: tuple[FieldPrior, ...] | None = None


def create_study(
    storage: RDBStorage,
    name: str,
    task: Task,
    space: SearchSpace,
    specification: Specification,
    begin: Callable[[], InitialTrials] = InitialTrials,
) -> optuna.Study:
    """Measure the original, freeze it as the baseline, enqueue the controls and what else is given.

    An original that is not trained is trained first (see ``study.trained_baseline``). A study of that name
    with the same specification is continued, also where another process makes it in the meantime.

    Args:
        storage: Database of the study.
        name: Name of the study.
        task: Task with the original model, its data and its metric.
        space: Search space.
        specification: Specification of the study.
        begin: Gives what a new study begins with besides; not called for one that is continued.

    Raises:
        StudyError: When the name exists with another specification.
        TaskError: When the original itself cannot become a file.
    """
    existing = find(storage, name)
    if existing is not None and not StudyRecord(existing).may_be_replaced:
        check_same(existing, specification)
        return existing
    initial = begin()
    with scratch_folder("create") as folder:
        file = Path(folder, BASELINE_FILE)
        contents = _Contents.measure(task, space, specification, initial, file, storage)
        store = artifact_store(specification, storage.url)
        draft = contents.draft(name, store, sqlite_folder(storage.url))
        made = store_whole(draft, storage, may_be_replaced)
    study = optuna.load_study(storage=storage, study_name=name)
    if not made:
        store.remove(StudyRecord(draft).baseline_record["artifact_id"])
        check_same(study, specification)
        logger.warning("study %r was made by another process in the meantime; continuing it", name)
    return study


def check_same(study: optuna.Study, specification: Specification) -> None:
    """Refuse to mix trials that cannot be compared.

    Raises:
        StudyError: Naming what differs.
    """
    differences = StudyRecord(study).specification.differences(specification)
    if differences:
        raise StudyError(
            f"study {study.study_name!r} exists with another specification ({'; '.join(differences)}); "
            "give another `name`, or continue it with `resume`"
        )


@dataclasses.dataclass(frozen=True)
class _Contents:
    """Everything that makes a row in the database a study of ours.

    Attributes:
        space: Search space.
        specification: Specification of the study.
        initial: What the search begins with besides its controls.
        baseline: What ``measure_baseline`` returned.
        file: The baseline's file.
        bounds: Scale of the objectives.
    """

    space: SearchSpace
    specification: Specification
    initial: InitialTrials
    baseline: Mapping[str, Any]
    file: Path
    bounds: Bounds

    @classmethod
    def measure(
        cls,
        task: Task,
        space: SearchSpace,
        specification: Specification,
        initial: InitialTrials,
        file: Path,
        storage: RDBStorage,
    ) -> _Contents:
        """The contents of a new study, after its baseline was written to ``file`` and measured."""
        trained = _with_trained_baseline(task, specification)
        baseline = measure_baseline(
            trained, specification.profile, file, ShapeStore.in_cache(Path(specification.cache))
        )
        tuner = serving_tuner(specification, trained, storage, specification.profile.baseline_place[0])
        if tuner is not None:
            answer = _served(tuner, file)
            speed = {name: answer.expected[name].value for name in ("latency_ms", "throughput_per_s")}
            baseline["values"] = {**baseline["values"], **speed}
            baseline["recommendation"] = answer.to_dict()
        if not task.trained:
            baseline["reference"] = trained.fingerprint
        bounds = _bounds(trained, specification, baseline)
        return cls(space, specification, initial, baseline, file, bounds)

    def draft(self, name: str, store: FileSystemArtifactStore, folder: Path | None) -> optuna.Study:
        """The study in memory, with everything that it begins with.

        Args:
            name: Name of the study.
            store: Where the baseline's file goes.
            folder: Folder of the SQLite file that the study will be in; None for another database.
        """
        study = draft_study(name, self.specification.objectives)
        record = StudyRecord(study)
        record.store_specification(self.specification.movable_with(folder))
        record.store_baseline(self.baseline, self.file, store)
        record.store_bounds(self.bounds)
        if self.initial.warm_start is not None:
            record.store_warm_start(self.initial.warm_start, self.initial.credit)
        if self.initial.priors is not None:
            record.store_priors(self.initial.priors)
        for pipeline in (*controls(self.space, self.specification.budget), *self.initial.pipelines):
            study.enqueue_trial(encode(pipeline, self.space))
        record.mark_complete()
        return study


def _bounds(task: Task, specification: Specification, baseline: Mapping[str, Any]) -> Bounds:
    """Scale of the objectives: the baseline's values, and where those are 0 by nature the most there can be.

    Where the profile's runtime is slower than the baseline's, the original's values in the profile's runtime
    count instead: by those of the baseline no file would lie within the bounds.

    Raises:
        StudyError: When this machine cannot measure an objective, or what a limit is on.
        TaskError: When the original cannot be trained to find the scale of ``train_s``.
    """
    values = dict(baseline["values"])
    names = specification.efficiency_metrics
    needed = [*names, *(name for name, _ in specification.limits.items() if name != QUALITY_DROP)]
    if missing := [name for name in needed if name not in values]:
        of_energy = missing[0] == "energy_j"
        reason = baseline["baseline"]["energy_source"] if of_energy else "this system does not tell"
        raise StudyError(f"{missing[0]} can be neither an objective nor limited here, leave it out: {reason}")
    for name, value in baseline["elsewhere"].items():
        worse = max if efficiency_metric(name).direction == "minimize" else min
        values[name] = worse(values[name], value)
    if "depth" in names:
        values["depth"] = specification.space["max_length"] + 1
    if "train_s" in names:
        try:
            values["train_s"] = full_training_seconds(task, specification.budget)
        except TrialError as error:
            raise TaskError(f"the original model of task {task.name!r} cannot be trained: {error}") from error
    reference = (values[specification.metric], *(values[name] for name in names))
    by_ratio = (False, *(efficiency_metric(name).by_ratio for name in names))
    return Bounds(reference, by_ratio, specification.region)


def _served(tuner: ServingTuner, file: Path) -> Recommendation:
    """How the baseline is served best: it is compared with files that are, too."""
    try:
        return tuner.tuner.recommend(file, tuner.feeds)
    except TrialError as error:
        raise TaskError(f"the original model cannot be served: {error}") from error


def _with_trained_baseline(task: Task, specification: Specification) -> Task:
    try:
        return with_trained_baseline(task, specification)
    except TrialError as error:
        raise TaskError(f"the model of task {task.name!r} cannot be trained: {error}") from error
