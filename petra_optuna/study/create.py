"""Making a study with its baseline and controls."""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.study import StudyDirection

from petra_optuna.errors import StudyError, TaskError, TrialError
from petra_optuna.evaluation import (
    QUALITY_DROP,
    efficiency_metric,
    full_training_seconds,
)
from petra_optuna.evolution import Bounds
from petra_optuna.pipeline import Pipeline, SearchSpace, encode
from petra_optuna.samplers import BOUNDS
from petra_optuna.study import record as attributes
from petra_optuna.study.baseline import BASELINE_FILE, measure_baseline
from petra_optuna.study.controls import controls
from petra_optuna.study.lookup import artifact_folder, find, is_cut_off, specification_of
from petra_optuna.study.specification import Specification
from petra_optuna.study.trained_baseline import with_trained_baseline
from petra_optuna.tasks import Task


@dataclasses.dataclass(frozen=True)
class InitialTrials:
    """What a study starts with besides its baseline and controls.

    Attributes:
        pipelines: Enqueued after the controls.
        attributes: User attributes of the study, frozen before its first plan.
    """

    pipelines: tuple[Pipeline, ...] = ()
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def create_study(
    storage: RDBStorage,
    name: str,
    task: Task,
    space: SearchSpace,
    specification: Specification,
    begin: Callable[[], InitialTrials] = InitialTrials,
) -> optuna.Study:
    """Measure the original, freeze it as the baseline, enqueue the controls and what else is given.

    An original that nothing has trained is trained first (``study.reference``).

    A study of that name with the same specification is continued.

    Args:
        storage: Where the study is, or shall be.
        name: Of the study.
        task: The original model, its data and its metric.
        space: The search space.
        specification: Of the study.
        begin: What a new study starts with besides; not called for one that is continued.

    Raises:
        StudyError: When the name exists with another specification.
        TaskError: When the original itself cannot become a file.
    """
    existing = find(storage, name)
    if existing is not None and not is_cut_off(existing):
        check_same(existing, specification)
        return existing
    if existing is not None:
        optuna.delete_study(study_name=name, storage=storage)
    beginning = begin()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, BASELINE_FILE)
        reference = _reference(task, specification)
        record = measure_baseline(reference, specification.profile, path)
        if not task.trained:
            record["reference"] = reference.fingerprint
        bounds = _bounds(reference, specification, record)
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=[StudyDirection[way.upper()] for _, way in specification.objectives],
            )
        except DuplicatedStudyError as error:
            raise StudyError(f"study {name!r} is being made by another process; run this again") from error
        try:
            _fill(study, space, specification, beginning, record, bounds, path)
        except BaseException:  # even Ctrl-C must not leave a name that can be neither run nor resumed
            optuna.delete_study(study_name=name, storage=storage)
            raise
    return study


def check_same(study: optuna.Study, specification: Specification) -> None:
    """Refuse to mix trials that cannot be compared.

    Raises:
        StudyError: Naming what differs.
    """
    differences = specification_of(study).differences(specification)
    if differences:
        raise StudyError(
            f"study {study.study_name!r} exists with another specification ({'; '.join(differences)}); "
            "give another --study name, or continue it with `petra resume`"
        )


def _fill(
    study: optuna.Study,
    space: SearchSpace,
    specification: Specification,
    beginning: InitialTrials,
    record: dict[str, Any],
    bounds: Bounds,
    path: Path,
) -> None:
    """Everything that makes a row in the database a study of ours; the specification comes last."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names([name for name, _ in specification.objectives])
    study.set_user_attr(attributes.SPECIFICATION, specification.to_dict())
    folder = artifact_folder(study)
    folder.mkdir(parents=True, exist_ok=True)
    record["artifact_id"] = upload_artifact(
        artifact_store=FileSystemArtifactStore(str(folder)), file_path=str(path), study_or_trial=study
    )
    study.set_user_attr(attributes.BASELINE, record)
    study.set_user_attr(BOUNDS, bounds.to_dict())
    for key, value in beginning.attributes.items():
        study.set_user_attr(key, value)
    for pipeline in (*controls(space, specification.budget), *beginning.pipelines):
        study.enqueue_trial(encode(pipeline, space))
    study.set_user_attr(attributes.COMPLETE, True)


def _bounds(task: Task, specification: Specification, record: dict[str, Any]) -> Bounds:
    """Scale of the objectives: the original's values, and where those are 0 by nature the most there can be.

    In a runtime that is slower than the baseline's the original's values there count: beside the baseline's
    nothing would lie within the bounds.

    Raises:
        StudyError: When this machine cannot measure an objective, or what a limit is on.
        TaskError: When the original cannot be trained to find the scale of ``train_s``.
    """
    values = dict(record["values"])
    names = specification.quantities
    needed = [*names, *(name for name, _ in specification.limits.items() if name != QUALITY_DROP)]
    if missing := [name for name in needed if name not in values]:
        why = record["baseline"]["energy_source"] if missing[0] == "energy_j" else "this system does not tell"
        raise StudyError(f"{missing[0]} can be neither an objective nor limited here, leave it out: {why}")
    for name, value in record["elsewhere"].items():
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
    return Bounds(reference, (False, *(efficiency_metric(name).by_ratio for name in names)))


def _reference(task: Task, specification: Specification) -> Task:
    try:
        return with_trained_baseline(task, specification)
    except TrialError as error:
        raise TaskError(f"the model of task {task.name!r} cannot be trained: {error}") from error
