"""A recorded search, evaluated again: the same pipelines in the same order, in a study beside the search."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from petra_optuna.database import open_storage
from petra_optuna.errors import StudyError
from petra_optuna.evaluation import Limits, PrefixCache, Rungs
from petra_optuna.pipeline import SearchSpace, present_params
from petra_optuna.samplers import database_url, finished_trials, plan_indices, rename_enqueued
from petra_optuna.study.liveness import claim_dead_trials
from petra_optuna.study.objective import Objective
from petra_optuna.study.record import StudyRecord
from petra_optuna.study.worker_context import evaluator_of
from petra_optuna.tasks import Task


def recorded_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Finished trials in the order of their plans; the re-run of one that was cut off stands in its place."""
    indices = plan_indices(study.get_trials(deepcopy=False))
    return sorted(finished_trials(study), key=lambda trial: indices[trial.number])


def replay_study(search: optuna.Study, name: str, space: SearchSpace) -> optuna.Study:
    """A study of that name beside the search, in which the search's pipelines wait in their order.

    A replay that was cut off is continued.

    Args:
        search: Recorded search; an earlier release may have named its parameters otherwise.
        name: Name of the replay.
        space: Search space of both.

    Raises:
        StudyError: When the search is in no database.
    """
    url = database_url(search)
    if url is None:
        raise StudyError(f"study {search.study_name!r} is in no database, so it cannot be replayed")
    study = optuna.create_study(
        storage=open_storage(url),
        study_name=name,
        directions=search.directions,
        sampler=RandomSampler(0),
        load_if_exists=True,
    )
    enqueued = len(study.get_trials(deepcopy=False))
    for trial in recorded_trials(search)[enqueued:]:
        study.enqueue_trial(present_params(trial.params, space))
    claim_dead_trials(study)
    rename_enqueued(study, space)
    return study


@contextlib.contextmanager
def replay_objective(
    search: optuna.Study,
    task: Task,
    space: SearchSpace,
    artifacts: Path,
    *,
    cache: PrefixCache | None,
    limits: Limits,
    rungs: Rungs | None,
) -> Iterator[Objective]:
    """The search's objective with other parts that save training; baseline and budget are the search's.

    The search's own trials are evaluated with it as well. Those of dead processes are failed first.

    Args:
        search: Recorded search.
        task: Task of the search.
        space: Search space of the search.
        artifacts: Folder of the replay's files.
        cache: Cache of trained prefixes; None trains every pipeline from its start.
        limits: Hard limits that stop a trial in the preview.
        rungs: Rungs that stop training; None trains every pipeline to its end.

    Raises:
        StudyError: When this machine is not the one that the search was made on.
    """
    artifacts.mkdir(parents=True, exist_ok=True)
    claim_dead_trials(search)
    specification = dataclasses.replace(StudyRecord(search).specification, rungs=rungs)
    with evaluator_of(search, task) as evaluator:
        evaluator = dataclasses.replace(evaluator, cache=cache, limits=limits, rungs=rungs)
        yield Objective(evaluator, space, specification, FileSystemArtifactStore(str(artifacts)))
