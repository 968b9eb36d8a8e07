"""What a worker works with: scratch folder, measuring process, cache, evaluator, objective."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import optuna

from petra_optuna.database import open_storage
from petra_optuna.errors import StudyError
from petra_optuna.evaluation import Evaluator, PrefixCache
from petra_optuna.inference import ServingTuner
from petra_optuna.measurement import MeasuringProcess, ShapeMeasurer, ShapeStore, shape_signature
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.pipeline import SearchSpace
from petra_optuna.samplers import database_url
from petra_optuna.scratch import scratch_folder
from petra_optuna.study.baseline import BASELINE_FILE
from petra_optuna.study.objective import Objective
from petra_optuna.study.record import StudyRecord
from petra_optuna.study.serving import serving_tuner
from petra_optuna.study.specification import Specification
from petra_optuna.study.trained_baseline import with_trained_baseline
from petra_optuna.tasks import Task


@contextlib.contextmanager
def worker_context(
    study: optuna.Study, task: Task, space: SearchSpace, *, cache: Path | None = None
) -> Iterator[Objective]:
    """The study's objective, with a scratch folder and a measuring process of the worker's own.

    Args:
        study: Study of the trials.
        task: Task of the study.
        space: Search space of the study.
        cache: Folder of cached prefixes; that of the study when None.

    Raises:
        StudyError: When this machine is not the one that the study was made on.
    """
    record = StudyRecord(study)
    with evaluator_of(study, task, cache=cache) as evaluator:
        yield Objective(evaluator, space, record.specification, record.artifact_store)


@contextlib.contextmanager
def evaluator_of(study: optuna.Study, task: Task, *, cache: Path | None = None) -> Iterator[Evaluator]:
    """The evaluator of the study's pipelines, with a scratch folder and a measuring process of its own.

    Args:
        study: Study of the pipelines.
        task: Task of the study.
        cache: Folder of cached prefixes; that of the study when None.

    Raises:
        StudyError: When this machine is not the one that the study was made on.
    """
    record = StudyRecord(study)
    specification, measured = record.specification, record.baseline_record
    if cache is not None:
        specification = dataclasses.replace(specification, cache=str(cache.resolve()))
    profile = specification.profile
    profile.check_host(measured["host"])
    task = with_trained_baseline(task, specification)
    if measured.get("reference", task.fingerprint) != task.fingerprint:
        raise StudyError(
            f"the retrained baseline of study {study.study_name!r} differs from the stored one; "
            f"restore the folder {specification.cache} that held it, give another as `cache`, or start a new "
            "study"
        )
    prefixes = PrefixCache(Path(specification.cache))
    setting = [profile.to_dict(), measured["host"]]
    with scratch_folder("worker") as scratch:
        folder = Path(scratch)
        file = folder / BASELINE_FILE
        record.fetch_baseline(file)
        setting.append(shape_signature(file))
        with MeasuringProcess(profile, file, to_feeds(task.example)) as process:
            yield Evaluator(
                task=task,
                measurer=ShapeMeasurer(
                    process, record.baseline, ShapeStore.in_cache(prefixes.folder), setting
                ),
                folder=folder,
                budget=specification.budget,
                seed=specification.seed,
                cache=prefixes,
                limits=specification.limits,
                rungs=specification.rungs,
                baseline_quality=record.baseline_values[task.metric.name],
                runtime=profile.runtime,
                device=profile.device,
                train_precision=specification.train_precision,
                tune_inference=_serving_tuner(study, specification, task),
            )


def _serving_tuner(study: optuna.Study, specification: Specification, task: Task) -> ServingTuner | None:
    url = database_url(study)
    if url is None:
        return None  # a study in memory, which only tests make
    return serving_tuner(specification, task, open_storage(url), specification.profile.runtime)
