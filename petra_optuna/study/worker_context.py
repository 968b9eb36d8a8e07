"""What a worker works with: scratch folder, measuring process, cache, evaluator, objective."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import optuna
import torch
from optuna.artifacts import FileSystemArtifactStore

from petra_optuna.errors import StudyError
from petra_optuna.evaluation import (
    Evaluator,
    PrefixCache,
    ShapeHistory,
)
from petra_optuna.measurement import MeasuringProcess
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.pipeline import SearchSpace
from petra_optuna.study import record as attributes
from petra_optuna.study.baseline import baseline_of, fetch_baseline
from petra_optuna.study.lookup import artifact_folder, specification_of
from petra_optuna.study.objective import Objective
from petra_optuna.study.trained_baseline import with_trained_baseline
from petra_optuna.tasks import Task


@contextlib.contextmanager
def worker_context(study: optuna.Study, task: Task, space: SearchSpace) -> Iterator[Objective]:
    """Everything a worker needs: its own scratch folder, measuring process, cache and objective."""
    store = FileSystemArtifactStore(str(artifact_folder(study)))
    with evaluator_of(study, task) as evaluator:
        yield Objective(evaluator, space, specification_of(study), store)


@contextlib.contextmanager
def evaluator_of(study: optuna.Study, task: Task) -> Iterator[Evaluator]:
    """What evaluates the study's pipelines, with a scratch folder and a measuring process of its own.

    Raises:
        StudyError: When this machine is not the one that the study was made on.
    """
    specification = specification_of(study)
    baseline = study.user_attrs[attributes.BASELINE]
    specification.profile.check_host(baseline["host"])
    task = with_trained_baseline(task, specification)
    if baseline.get("reference", task.fingerprint) != task.fingerprint:
        raise StudyError(
            f"the baseline of study {study.study_name!r} was trained anew and came out otherwise; "
            "give the --cache folder back that held it, or start a new study"
        )
    cache = PrefixCache(Path(specification.cache))
    scope = f"{baseline['sha256']} {specification.profile.to_dict()} {baseline['host']}"
    with tempfile.TemporaryDirectory(prefix="petra-") as scratch:
        folder = Path(scratch)
        path = fetch_baseline(study, folder)
        with MeasuringProcess(specification.profile, path, to_feeds(task.example)) as process:
            yield Evaluator(
                task=task,
                measurer=process,
                baseline=baseline_of(study),
                folder=folder,
                budget=specification.budget,
                seed=specification.seed,
                cache=cache,
                history=ShapeHistory(cache.folder, scope),
                limits=specification.limits,
                rungs=specification.rungs,
                baseline_quality=baseline["values"][task.metric.name],
                runtime=specification.profile.runtime,
                device=specification.profile.name,
            )


@contextlib.contextmanager
def training_threads(threads: int) -> Iterator[None]:
    """PyTorch at so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
